// charttool renders the chart with Helm's own engine, many sets of values in one run, and reads the result back strictly with
// Kubernetes' own types. Helm's command does the same and more (tests/deploy/helm.sh) but takes minutes to build.
//
//	charttool render < CASES     a JSON list of cases in, a JSON list of results out
//	charttool values CHART       the chart's defaults as JSON
//	charttool package CHART FOLDER APP_VERSION     writes FOLDER/NAME-VERSION.tgz
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/strvals"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

type renderCase struct {
	Chart       string                 `json:"chart"`
	Values      map[string]interface{} `json:"values"`
	ValuesFiles []string               `json:"valuesFiles"` // before values, as -f
	Set         []string               `json:"set"`         // after values, as --set
	KubeVersion string                 `json:"kubeVersion"`
	Namespace   string                 `json:"namespace"`
}

type renderResult struct {
	Error   string                   `json:"error,omitempty"` // what helm would have said
	Strict  []string                 `json:"strict"`          // what the types of Kubernetes do not know
	Objects []map[string]interface{} `json:"objects"`
	Text    string                   `json:"text"` // as helm template prints it
	Notes   string                   `json:"notes"`
}

// One of each kind that the chart makes. Kinds of operators (monitoring.coreos.com, k8s.cni.cncf.io) have no types here.
var kinds = map[string]func() interface{}{
	"apps/v1/DaemonSet":                               func() interface{} { return &appsv1.DaemonSet{} },
	"batch/v1/Job":                                    func() interface{} { return &batchv1.Job{} },
	"v1/ConfigMap":                                    func() interface{} { return &corev1.ConfigMap{} },
	"v1/ServiceAccount":                               func() interface{} { return &corev1.ServiceAccount{} },
	"v1/ResourceQuota":                                func() interface{} { return &corev1.ResourceQuota{} },
	"v1/Namespace":                                    func() interface{} { return &corev1.Namespace{} },
	"networking.k8s.io/v1/NetworkPolicy":              func() interface{} { return &networkingv1.NetworkPolicy{} },
	"rbac.authorization.k8s.io/v1/ClusterRole":        func() interface{} { return &rbacv1.ClusterRole{} },
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding": func() interface{} { return &rbacv1.ClusterRoleBinding{} },
	"rbac.authorization.k8s.io/v1/Role":               func() interface{} { return &rbacv1.Role{} },
	"rbac.authorization.k8s.io/v1/RoleBinding":        func() interface{} { return &rbacv1.RoleBinding{} },
	"monitoring.coreos.com/v1/PodMonitor":             nil,
	"monitoring.coreos.com/v1/PrometheusRule":         nil,
	"k8s.cni.cncf.io/v1/NetworkAttachmentDefinition":  nil,
}

// The types are those of Kubernetes 1.27, the newest that Debian 12's Go builds. What the chart uses of later ones is looked at
// here and taken out: securityContext.appArmorProfile, since 1.30.
func takeYoungerFields(value interface{}) error {
	switch value := value.(type) {
	case []interface{}:
		for _, item := range value {
			if err := takeYoungerFields(item); err != nil {
				return err
			}
		}
	case map[string]interface{}:
		for _, item := range value {
			if err := takeYoungerFields(item); err != nil {
				return err
			}
		}
		context, _ := value["securityContext"].(map[string]interface{})
		if profile, present := context["appArmorProfile"]; present {
			if fmt.Sprint(profile) != "map[type:Unconfined]" {
				return fmt.Errorf("appArmorProfile: %v", profile)
			}
			delete(context, "appArmorProfile")
		}
	}
	return nil
}

func readStrictly(document string) (map[string]interface{}, string) {
	var object map[string]interface{}
	if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
		return nil, err.Error()
	}
	name := fmt.Sprintf("%v/%v", object["apiVersion"], object["kind"])
	kind, known := kinds[name]
	if !known {
		return object, name + ": a kind that charttool does not know"
	}
	var older map[string]interface{}
	if err := yaml.Unmarshal([]byte(document), &older); err != nil {
		return object, err.Error()
	}
	if err := takeYoungerFields(older); err != nil {
		return object, name + ": " + err.Error()
	}
	if kind != nil {
		known, err := yaml.Marshal(older)
		if err != nil {
			return object, err.Error()
		}
		if err := yaml.UnmarshalStrict(known, kind(), yaml.DisallowUnknownFields); err != nil {
			return object, name + ": " + err.Error()
		}
	}
	return object, ""
}

func values(c renderCase) (map[string]interface{}, error) {
	all := map[string]interface{}{}
	layers := []map[string]interface{}{}
	for _, path := range c.ValuesFiles {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		layer := map[string]interface{}{}
		if err := yaml.Unmarshal(text, &layer); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		layers = append(layers, layer)
	}
	for _, layer := range append(layers, c.Values) {
		if layer != nil { // the later one wins
			all = chartutil.CoalesceTables(layer, all)
		}
	}
	for _, set := range c.Set {
		if err := strvals.ParseInto(set, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func render(loaded *chart.Chart, c renderCase) (*renderResult, error) {
	given, err := values(c)
	if err != nil {
		return nil, err
	}
	capabilities := *chartutil.DefaultCapabilities
	version := c.KubeVersion
	if version == "" {
		version = "v1.34.0"
	}
	parsed, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		return nil, err
	}
	capabilities.KubeVersion = *parsed
	if loaded.Metadata.KubeVersion != "" && !chartutil.IsCompatibleRange(loaded.Metadata.KubeVersion, parsed.String()) {
		return nil, fmt.Errorf("chart requires kubeVersion %s, this is %s", loaded.Metadata.KubeVersion, parsed)
	}
	namespace := c.Namespace
	if namespace == "" {
		namespace = "istio-system"
	}
	options := chartutil.ReleaseOptions{Name: "ambient-cni", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(loaded, given, options, &capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{LintMode: false, Strict: false}.Render(loaded, all)
	if err != nil {
		return nil, err
	}
	result := &renderResult{Strict: []string{}, Objects: []map[string]interface{}{}}
	for path, text := range files {
		if strings.HasSuffix(path, "NOTES.txt") {
			result.Notes = text
			delete(files, path)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(files, capabilities.APIVersions, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}
	add := func(document string) {
		object, complaint := readStrictly(document)
		if complaint != "" {
			result.Strict = append(result.Strict, complaint)
		}
		if object != nil {
			result.Objects = append(result.Objects, object)
		}
	}
	for _, manifest := range manifests {
		add(manifest.Content)
		result.Text += "---\n" + strings.TrimSpace(manifest.Content) + "\n"
	}
	sort.Slice(hooks, func(i, j int) bool { return hooks[i].Path+hooks[i].Kind < hooks[j].Path+hooks[j].Kind })
	for _, hook := range hooks {
		add(hook.Manifest)
	}
	return result, nil
}

func renderAll() error {
	var cases []renderCase
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(input, &cases); err != nil {
		return err
	}
	results := []*renderResult{}
	charts := map[string]*chart.Chart{}
	for _, c := range cases {
		if charts[c.Chart] == nil {
			if charts[c.Chart], err = loader.Load(c.Chart); err != nil {
				return err
			}
		}
		result, err := render(charts[c.Chart], c)
		if err != nil {
			result = &renderResult{Error: err.Error()}
		}
		results = append(results, result)
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func packageChart(path, folder, appVersion string) error {
	loaded, err := loader.Load(path)
	if err != nil {
		return err
	}
	loaded.Metadata.AppVersion = appVersion
	name, err := chartutil.Save(loaded, folder)
	if err == nil {
		fmt.Println(name)
	}
	return err
}

func main() {
	log.SetFlags(0)
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "render":
		err = renderAll()
	case len(os.Args) == 3 && os.Args[1] == "values":
		var loaded *chart.Chart
		if loaded, err = loader.Load(os.Args[2]); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(loaded.Values)
		}
	case len(os.Args) == 5 && os.Args[1] == "package":
		err = packageChart(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = fmt.Errorf("usage: charttool render < CASES | charttool values CHART | charttool package CHART FOLDER APP_VERSION")
	}
	if err != nil {
		log.Fatalf("charttool: %v", err)
	}
}
