// judge says which network configuration the libraries of real runtimes load: go-cni (containerd) and ocicni (CRI-O), and what
// libcni thinks of each file.
//
//	judge CONFDIR BINDIR
//
// prints {"containerd": {"network", "plugins", "error"}, "crio": {"network", "error"}, "files": {NAME: ERROR}}.
package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	gocni "github.com/containerd/go-cni"
	"github.com/containernetworking/cni/libcni"
	"github.com/cri-o/ocicni/pkg/ocicni"
	"github.com/sirupsen/logrus"
)

type verdict struct {
	Network string   `json:"network"`
	Plugins []string `json:"plugins,omitempty"`
	Error   string   `json:"error"`
}

// As containerd's CRI plugin sets it up: one network beside the loopback.
func containerd(confDir, binDir string) (v verdict) {
	cni, err := gocni.New(gocni.WithMinNetworkCount(2), gocni.WithPluginConfDir(confDir),
		gocni.WithPluginMaxConfNum(1), gocni.WithPluginDir([]string{binDir}))
	if err == nil {
		err = cni.Load(gocni.WithLoNetwork, gocni.WithDefaultConf)
	}
	if err == nil {
		err = cni.Status()
	}
	if err != nil {
		v.Error = err.Error()
		return v
	}
	for _, network := range cni.GetConfig().Networks {
		if network.Config.Name == "cni-loopback" {
			continue
		}
		v.Network = network.Config.Name
		for _, plugin := range network.Config.Plugins {
			v.Plugins = append(v.Plugins, plugin.Network.Type)
		}
	}
	return v
}

func crio(confDir, binDir string) (v verdict) {
	plugin, err := ocicni.InitCNI("", confDir, binDir)
	if err == nil {
		defer plugin.Shutdown()
		err = plugin.Status()
	}
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.Network = plugin.GetDefaultNetworkName()
	return v
}

func files(confDir string) map[string]string {
	result := map[string]string{}
	paths, err := libcni.ConfFiles(confDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return map[string]string{"": err.Error()}
	}
	for _, path := range paths {
		var list *libcni.NetworkConfigList
		if strings.HasSuffix(path, ".conflist") {
			list, err = libcni.ConfListFromFile(path)
		} else {
			var conf *libcni.NetworkConfig
			conf, err = libcni.ConfFromFile(path)
			if err == nil {
				list, err = libcni.ConfListFromConf(conf)
			}
		}
		result[filepath.Base(path)] = ""
		if err != nil {
			result[filepath.Base(path)] = err.Error()
		} else if len(list.Plugins) == 0 {
			result[filepath.Base(path)] = "no plugins"
		}
	}
	return result
}

func main() {
	logrus.SetOutput(io.Discard)
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"containerd": containerd(os.Args[1], os.Args[2]),
		"crio":       crio(os.Args[1], os.Args[2]),
		"files":      files(os.Args[1]),
	})
}
