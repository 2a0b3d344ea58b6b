package steward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/yaml"
)

const (
	fieldManager = "marina"
	addonLabel   = "marina.io/addon" // its value is the manifest's name
	applyEvery   = 2 * time.Minute   // what somebody changed or deleted is put right
	maxManifest  = 1 << 20           // bytes, rendered
)

// addonKind names the resource under which the API keeps objects of one kind.
type addonKind struct {
	schema.GroupVersionResource
	namespaced bool
}

// addonKinds lists the kinds that add-ons may have. Discovery would say the same, for more memory; and pruning looks through
// these.
var addonKinds = map[schema.GroupVersionKind]addonKind{}

func init() {
	for _, k := range []struct {
		group, version, kind, resource string
		namespaced                     bool
	}{
		{"", "v1", "Namespace", "namespaces", false},
		{"", "v1", "ServiceAccount", "serviceaccounts", true},
		{"", "v1", "ConfigMap", "configmaps", true},
		{"", "v1", "Service", "services", true},
		{"apps", "v1", "Deployment", "deployments", true},
		{"apps", "v1", "DaemonSet", "daemonsets", true},
		{"policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true},
		{"networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true},
		{"rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false},
		{"rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false},
		{"rbac.authorization.k8s.io", "v1", "Role", "roles", true},
		{"rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true},
		{"storage.k8s.io", "v1", "StorageClass", "storageclasses", false},
		{"apiregistration.k8s.io", "v1", "APIService", "apiservices", false},
	} {
		addonKinds[schema.GroupVersionKind{Group: k.group, Version: k.version, Kind: k.kind}] =
			addonKind{schema.GroupVersionResource{Group: k.group, Version: k.version, Resource: k.resource}, k.namespaced}
	}
}

// addons applies the manifests of a bundle.
type addons struct {
	cfg     *Config
	objects dynamic.Interface
	names   metadata.Interface
}

// addon is one object of a manifest.
type addon struct {
	kind   addonKind
	object *unstructured.Unstructured
}

// run applies until ctx ends, and says in the status how that went.
func (a *addons) run(ctx context.Context, s *Steward) {
	wait := retryAfter
	for {
		err := a.apply(ctx, s.state.nodeless())
		if ctx.Err() != nil {
			return
		}
		status := AddonsStatus{Applied: err == nil}
		pause := applyEvery
		if err != nil {
			s.deps.Log.Info("add-ons not applied", "err", err)
			status.Error = limit(err.Error())
			pause, wait = wait, min(2*wait, retryAtMost)
		} else {
			wait = retryAfter
		}
		s.board.setAddons(status)
		s.statusBell.ring()
		select {
		case <-ctx.Done():
			return
		case <-s.addonsBell:
		case <-time.After(pause):
		}
	}
}

// apply applies all that can be and, if that was all, deletes what an earlier version of the bundle had besides. A
// cluster without nodes gets no aggregated APIs: nobody could serve them, and as long as one is not served no namespace
// can be deleted.
func (a *addons) apply(ctx context.Context, nodeless bool) error {
	if a.cfg.Addons == "" {
		return nil
	}
	wanted, err := a.read()
	if err != nil {
		return err
	}
	var errs []error
	keep := map[string]bool{}
	for _, w := range wanted {
		if nodeless && w.kind.Resource == "apiservices" {
			continue
		}
		keep[key(w.kind.GroupVersionResource, w.object.GetNamespace(), w.object.GetName())] = true
		to := dynamic.ResourceInterface(a.objects.Resource(w.kind.GroupVersionResource))
		if w.kind.namespaced {
			to = a.objects.Resource(w.kind.GroupVersionResource).Namespace(w.object.GetNamespace())
		}
		_, err := to.Apply(ctx, w.object.GetName(), w.object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", w.object.GetKind(), w.object.GetName(), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return a.prune(ctx, keep)
}

func (a *addons) prune(ctx context.Context, keep map[string]bool) error {
	for _, k := range addonKinds {
		list, err := a.names.Resource(k.GroupVersionResource).List(ctx, metav1.ListOptions{LabelSelector: addonLabel})
		if err != nil {
			return fmt.Errorf("%s: %w", k.Resource, err)
		}
		for _, o := range list.Items {
			if keep[key(k.GroupVersionResource, o.Namespace, o.Name)] || !appliedByUs(o.ManagedFields) {
				continue
			}
			err := a.names.Resource(k.GroupVersionResource).Namespace(o.Namespace).Delete(ctx, o.Name,
				metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.UID)),
					PropagationPolicy: new(metav1.DeletePropagationBackground)})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s %s: %w", k.Resource, o.Name, err)
			}
		}
	}
	return nil
}

// appliedByUs protects what merely has the label, as copies made by people and controllers do.
func appliedByUs(fields []metav1.ManagedFieldsEntry) bool {
	return slices.ContainsFunc(fields, func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == fieldManager && f.Operation == metav1.ManagedFieldsOperationApply
	})
}

func key(r schema.GroupVersionResource, namespace, name string) string {
	return r.String() + " " + namespace + "/" + name
}

// read returns all objects, in the order of file names and of documents in them.
func (a *addons) read() ([]addon, error) {
	files, err := filepath.Glob(filepath.Join(a.cfg.Addons, "manifests", "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 { // else everything would be pruned
		return nil, fmt.Errorf("%s has no manifests", a.cfg.Addons)
	}
	slices.Sort(files)
	var out []addon
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		objects, err := a.render(strings.TrimSuffix(filepath.Base(f), ".yaml"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(f), err)
		}
		out = append(out, objects...)
	}
	return out, nil
}

// render executes a manifest as a template of the configuration and reads its documents. Besides the fields of Config
// it has {{image "NAME"}}: the reference under which the bundle's images/ has that image.
func (a *addons) render(name, text string) ([]addon, error) {
	image := func(name string) (string, error) { return imageRef(a.cfg.Addons, name) }
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{"image": image}).Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, a.cfg); err != nil {
		return nil, err
	}
	if b.Len() > maxManifest {
		return nil, fmt.Errorf("%d bytes, at most %d", b.Len(), maxManifest)
	}
	var out []addon
	for doc := range strings.SplitSeq("\n"+b.String(), "\n---") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			return nil, err
		}
		if len(o.Object) == 0 {
			continue
		}
		k, known := addonKinds[o.GroupVersionKind()]
		if !known {
			return nil, fmt.Errorf("%s: add-ons have no such kind", o.GroupVersionKind())
		}
		if o.GetName() == "" || k.namespaced != (o.GetNamespace() != "") {
			return nil, fmt.Errorf("%s %q: name or namespace is wrong", o.GetKind(), o.GetName())
		}
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[addonLabel] = name
		o.SetLabels(labels)
		out = append(out, addon{k, o})
	}
	return out, nil
}
