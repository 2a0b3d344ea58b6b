package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// object is JSON to be; the kubelet and client-go read it where they take YAML.
type object map[string]any

// kubeletConfig is the kubelet's, for a node of that size on a machine of so many processors. What is not named has
// upstream's default. See docs/design/0001 for what a node in a user namespace on cgroup v1 takes.
func (c *Config) kubeletConfig(size Size, cpus int64) object {
	k := object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",

		"address":            c.Address,
		"healthzBindAddress": "127.0.0.1",
		"healthzPort":        10248,
		"tlsCertFile":        pkiDir + "/kubelet-server.crt",
		"tlsPrivateKeyFile":  pkiDir + "/kubelet-server.key",
		"rotateCertificates": false, // they are the datacenter's to replace
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": pkiDir + "/ca.crt"},
		},
		"authorization": object{"mode": "Webhook"},

		"containerRuntimeEndpoint": "unix://" + socket,
		"cgroupDriver":             "cgroupfs",
		"cgroupsPerQOS":            true,
		"enforceNodeAllocatable":   []string{"pods"},
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"makeIPTablesUtilChains":   false,
		"registerNode":             true,
		"maxPods":                  110,

		"clusterDNS":    []string{c.ClusterDNS},
		"clusterDomain": c.ClusterDomain,
		"resolvConf":    "/etc/resolv.conf",

		"podLogsDir":      "/var/log/pods",
		"volumePluginDir": "/var/lib/kubelet/volumeplugins",

		// Pulls of one image do not wait for those of another, and a node pulls no more than 4 at a time.
		"serializeImagePulls":   false,
		"maxParallelImagePulls": 4,

		"imageGCHighThresholdPercent": 85,
		"imageGCLowThresholdPercent":  80,
		// Naming one drops upstream's defaults of the others. The filesystem is the node's own, so these are true.
		"evictionHard": object{
			"memory.available":   "100Mi",
			"nodefs.available":   "5%",
			"nodefs.inodesFree":  "5%",
			"imagefs.available":  "5%",
			"imagefs.inodesFree": "5%",
		},
		"shutdownGracePeriod": "0s", // there is no logind to ask
	}
	if c.UserNamespace {
		k["featureGates"] = object{"KubeletInUserNamespace": true}
	}
	// The kubelet sees the machine's processors; what is reserved makes allocatable the grant.
	if reserved := cpus*1000 - size.MilliCPU; size.MilliCPU > 0 && reserved > 0 {
		k["systemReserved"] = object{"cpu": fmt.Sprintf("%dm", reserved)}
	}
	return k
}

func (c *Config) kubeletArgs() []string {
	args := []string{
		c.program(), "kubelet",
		"--config=" + runDir + "/kubelet.json",
		"--kubeconfig=" + runDir + "/kubelet.kubeconfig",
		"--root-dir=/var/lib/kubelet",
		"--cert-dir=/var/lib/kubelet/pki",
		"--hostname-override=" + c.Name,
		"--node-ip=" + c.Address,
	}
	if labels := c.nodeLabels(); labels != "" {
		args = append(args, "--node-labels="+labels)
	}
	return args
}

// nodeLabels leaves out what a kubelet refuses to set on itself, and would not start with: kubernetes.io's and k8s.io's
// names outside of the prefixes that are its own.
func (c *Config) nodeLabels() string {
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		domain, _, named := strings.Cut(k, "/")
		reserved := named && (under(domain, "kubernetes.io") || under(domain, "k8s.io"))
		own := under(domain, "kubelet.kubernetes.io") || under(domain, "node.kubernetes.io") ||
			k == "topology.kubernetes.io/zone" || k == "topology.kubernetes.io/region"
		if !reserved || own {
			labels = append(labels, k+"="+c.Labels[k])
		}
	}
	return strings.Join(labels, ",")
}

func under(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

// networkArgs start node-network.
func (c *Config) networkArgs(config string) []string {
	return []string{
		c.program(), "node-network",
		"--config=" + config,
		"--pki-dir=" + pkiDir,
		"--kubeconfig=" + runDir + "/nodenet.kubeconfig",
		"--proxy-kubeconfig=" + runDir + "/proxy.kubeconfig",
		"--cni-config=" + cniDir + "/10-marina.conflist",
	}
}

// kubeconfig is of the one whose certificate is NAME.crt.
func (c *Config) kubeconfig(name string) object {
	return object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": "cluster",
		"clusters": []object{{"name": "cluster", "cluster": object{
			"server":                c.Server,
			"certificate-authority": pkiDir + "/ca.crt",
		}}},
		"users": []object{{"name": name, "user": object{
			"client-certificate": pkiDir + "/" + name + ".crt",
			"client-key":         pkiDir + "/" + name + ".key",
		}}},
		"contexts": []object{{"name": "cluster", "context": object{"cluster": "cluster", "user": name}}},
	}
}
