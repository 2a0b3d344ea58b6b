package hyperkube

import (
	"fmt"
	"os"
	"path/filepath"
)

// Files that flags of the API server name, made by prepare in the run directory.

// Anonymous requests are for probes alone. Upstream would let RBAC decide about every path.
const authenticationFile = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`

// What goes into the cluster goes by the steward's proxy, and so does what upstream counts as the control plane's: that
// is also any URL that somebody wrote into a webhook. Etcd is not named: even Direct would put a dialer in place that
// takes the path of its socket for a TCP address.
const egressFile = `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: %q}}
- name: controlplane
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: %[1]q}}
`

// No exemption, kube-system included: add-ons need none. See docs/design/0001.
const admissionFile = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, enforce-version: latest, audit: baseline, audit-version: latest, warn: baseline, warn-version: latest}
    exemptions: {usernames: [], runtimeClasses: [], namespaces: []}
`

// Who did what, without the requests' content; not what machines do all the time to stay alive.
const auditFile = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: [/livez*, /readyz*, /healthz*, /version, /openapi*, /api*]
  verbs: [get]
- level: None
  resources:
  - group: coordination.k8s.io
    resources: [leases]
- level: None
  resources:
  - group: ""
    resources: [events]
  - group: events.k8s.io
    resources: [events]
- level: None
  userGroups: [system:nodes]
  verbs: [update, patch]
  resources:
  - group: ""
    resources: [nodes/status, pods/status]
- level: Metadata
`

// Bounds of the audit log: five files of 20 MB, compressed but for the current one.
const (
	auditMegabytes = 20
	auditFiles     = 4 // old ones
	auditDays      = 30
)

func (c *config) auditDir() string           { return filepath.Join(filepath.Dir(c.dataDir), "audit") }
func (c *config) written(name string) string { return filepath.Join(c.runDir, name+".yaml") }

// writeFiles makes those that this configuration needs.
func (c *config) writeFiles() error {
	files := map[string]string{"authentication": authenticationFile}
	if c.steward != nil {
		files["egress"] = fmt.Sprintf(egressFile, c.steward.EgressSocket)
		if !c.steward.Privileged {
			files["admission"] = admissionFile
		}
	}
	if c.audit {
		files["audit"] = auditFile
		if err := os.MkdirAll(c.auditDir(), 0o700); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(c.written(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writtenArgs are the flags that name them.
func (c *config) writtenArgs() []string {
	args := []string{"--authentication-config=" + c.written("authentication")}
	if c.steward != nil {
		args = append(args, "--egress-selector-config-file="+c.written("egress"))
		if !c.steward.Privileged {
			args = append(args, "--admission-control-config-file="+c.written("admission"))
		}
	}
	if c.audit {
		args = append(args,
			"--audit-policy-file="+c.written("audit"),
			"--audit-log-path="+filepath.Join(c.auditDir(), "audit.log"),
			fmt.Sprintf("--audit-log-maxsize=%d", auditMegabytes),
			fmt.Sprintf("--audit-log-maxbackup=%d", auditFiles),
			fmt.Sprintf("--audit-log-maxage=%d", auditDays),
			"--audit-log-compress=true")
	}
	if c.encryption != "" {
		args = append(args, "--encryption-provider-config="+c.encryption,
			"--encryption-provider-config-automatic-reload=true")
	}
	return args
}
