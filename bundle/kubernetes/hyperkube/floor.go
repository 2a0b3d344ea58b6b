package hyperkube

import (
	"context"
	"fmt"
	"io"
	"slices"

	"k8s.io/apiserver/pkg/admission"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/apis/core"
	podsecurity "k8s.io/pod-security-admission/api"
)

// floorName is an admission plugin of ours, on where nodes have no user namespaces: there root in a privileged pod is
// root on a machine of the datacenter. Pod Security enforces baseline in namespaces that say nothing, but whoever may
// label a namespace may say privileged; this keeps the label from saying so. Policies and webhooks would do as well,
// but the cluster's administrator can delete those.
const floorName = "MarinaPodSecurityFloor"

// addFloor adds the plugin, which is on unless switched off.
func addFloor(o *apiserveroptions.ServerRunOptions) {
	a := o.Admission.GenericAdmission
	a.Plugins.Register(floorName, func(io.Reader) (admission.Interface, error) {
		return floor{admission.NewHandler(admission.Create, admission.Update)}, nil
	})
	a.RecommendedPluginOrder = append(slices.Clone(a.RecommendedPluginOrder), floorName)
}

type floor struct{ *admission.Handler }

// Validate refuses namespaces that enforce less than baseline, however they are written.
func (floor) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	ns, ok := a.GetObject().(*core.Namespace)
	if !ok {
		return nil
	}
	level, labelled := ns.Labels[podsecurity.EnforceLevelLabel]
	if !labelled || level == string(podsecurity.LevelBaseline) || level == string(podsecurity.LevelRestricted) {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("%s=%s: nodes of this cluster have no user namespace, "+
		"so that %s is the least: %s or %s", podsecurity.EnforceLevelLabel, level,
		podsecurity.LevelBaseline, podsecurity.LevelBaseline, podsecurity.LevelRestricted))
}
