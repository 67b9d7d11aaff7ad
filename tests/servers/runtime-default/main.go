// Prints containerd's default seccomp profile ("RuntimeDefault") for a container with the capabilities that are named on
// the command line, as an OCI runtime takes it.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Set by the linker.
var version = "unknown"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("containerd", version)
		return
	}
	capabilities := &specs.LinuxCapabilities{Bounding: os.Args[1:]}
	profile := seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: capabilities}})
	if err := json.NewEncoder(os.Stdout).Encode(profile); err != nil {
		log.Fatal(err)
	}
}
