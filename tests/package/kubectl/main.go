// kubectl, from its own library: the version that Debian 12's Go builds has no package that `go install` takes by itself.
package main

import (
	"os"

	"k8s.io/kubectl/pkg/cmd"

	"k8s.io/component-base/cli"
)

func main() {
	os.Exit(cli.Run(cmd.NewDefaultKubectlCommand()))
}
