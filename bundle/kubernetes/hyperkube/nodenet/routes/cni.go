package routes

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
)

// addressesDir is host-local's record of the addresses that are given. It lies in /run, so that it ends with the node's
// sandboxes, as the addresses do.
const addressesDir = "/run/marina/addresses"

// cniConfig is the chain of plugins that connects a pod. Its version is one before STATUS: the engine being away for a
// moment must not make the node unready.
func cniConfig(pods netip.Prefix, mtu int, gateSocket string) ([]byte, error) {
	type object map[string]any
	return json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "marina",
		"plugins": []object{
			{
				"type": "ptp", "mtu": mtu, "ipMasq": false,
				"ipam": object{
					"type": "host-local", "dataDir": addressesDir,
					"ranges": [][]object{{{"subnet": pods.String()}}},
					"routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "backend": "nftables", "snat": true, "capabilities": object{"portMappings": true}},
			{"type": "gate", "socket": gateSocket},
		},
	}, "", "  ")
}

// writeCNI puts content at file by rename, if it is not there already.
func writeCNI(file string, content []byte) error {
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	// Not named like a configuration: the runtime reads every file that is.
	temporary := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".new")
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}
