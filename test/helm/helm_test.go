package helm

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/kube"
	release "helm.sh/helm/v4/pkg/release/v1"

	"github.com/marinaos/marina/test/testbed"
)

const (
	patience  = 5 * time.Minute
	cluster   = "helm"
	namespace = "shop"
	busybox   = "docker.io/marinaos/busybox:1.35.0" // every node has it
)

// TestChartOfOthers installs, calls, upgrades and uninstalls a chart.
func TestChartOfOthers(t *testing.T) {
	h := testbed.Open(t)
	dir, err := moduleDir()
	if err != nil {
		t.Fatal(err)
	}
	chart, err := loader.LoadDir(filepath.Join(dir, "charts", "podinfo"))
	if err != nil {
		t.Fatal(err)
	}
	values := chart.Values["image"].(map[string]any)
	archive := filepath.Join(t.TempDir(), "podinfo.tar")
	if err := buildImage(t.TempDir(), fmt.Sprintf("%v:%v", values["repository"], values["tag"]), archive); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "cluster", "create", cluster, "--quiet")
	h.Must(t, "image", "load", archive, "--cluster", cluster)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	h.Must(t, "cluster", "kubeconfig", cluster, "--output", config)
	kubectl := func(args ...string) (string, error) {
		o := h.Run(append([]string{"cluster", "kubectl", cluster, "--"}, args...)...)
		if o.Code != 0 {
			return o.Out, fmt.Errorf("kubectl %s: %d %s", strings.Join(args, " "), o.Code, o.Err+o.Out)
		}
		return o.Out, nil
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := kubectl("get", "all,events", "-A", "-o", "wide")
			t.Log(out, err)
		}
	})
	helm := connect(t, config)

	install := action.NewInstall(helm)
	install.ReleaseName, install.Namespace, install.CreateNamespace = "web", namespace, true
	install.WaitStrategy, install.Timeout = kube.StatusWatcherStrategy, patience
	got, err := install.Run(chart, map[string]any{"ui": map[string]any{"message": "first"}})
	if err != nil {
		t.Fatalf("install: %v", err)
	}
	if r := got.(*release.Release); r.Version != 1 || r.Info.Status != "deployed" {
		t.Errorf("installed: revision %d is %s, want 1 deployed", r.Version, r.Info.Status)
	}

	// A neighbour of the chart's pods calls them as applications do: by name, through the Service.
	if _, err := kubectl("-n", namespace, "run", "caller", "--image="+busybox, "--restart=Never", "--command", "--", "sleep", "1000000"); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/caller", "--timeout=120s"); err != nil {
		t.Fatal(err)
	}
	says := func(message string) (string, error) {
		out, err := kubectl("-n", namespace, "exec", "caller", "--", "wget", "-q", "-O", "-", "http://web-podinfo:9898/")
		if err != nil {
			return "", err
		}
		var a struct{ Hostname, Message string }
		if err := json.Unmarshal([]byte(out), &a); err != nil || a.Message != message {
			return "", fmt.Errorf("the service answers %.300s, want message %q", out, message)
		}
		return a.Hostname, nil
	}
	testbed.Until(t, patience, "the chart's service", func() error { _, err := says("first"); return err })

	upgrade := action.NewUpgrade(helm)
	upgrade.Namespace, upgrade.WaitStrategy, upgrade.Timeout = namespace, kube.StatusWatcherStrategy, patience
	got, err = upgrade.Run("web", chart, map[string]any{"replicaCount": 2, "ui": map[string]any{"message": "second"}})
	if err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	if r := got.(*release.Release); r.Version != 2 || r.Info.Status != "deployed" {
		t.Errorf("upgraded: revision %d is %s, want 2 deployed", r.Version, r.Info.Status)
	}
	seen := map[string]bool{}
	testbed.Until(t, patience, "both of the upgrade's pods to answer", func() error {
		who, err := says("second")
		if err != nil {
			return err
		}
		if seen[who] = true; len(seen) < 2 {
			return fmt.Errorf("only %v answered", seen)
		}
		return nil
	})

	uninstall := action.NewUninstall(helm)
	uninstall.WaitStrategy, uninstall.Timeout, uninstall.DeletionPropagation = kube.StatusWatcherStrategy, patience, "foreground"
	if _, err := uninstall.Run("web"); err != nil {
		t.Fatalf("uninstall: %v", err)
	}
	testbed.Until(t, patience, "nothing of the chart to be left", func() error {
		out, err := kubectl("-n", namespace, "get", "all,secrets,configmaps", "-l", "app.kubernetes.io/name=web-podinfo", "-o", "name")
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
}

// connect is Helm at a cluster.
func connect(t *testing.T, kubeconfig string) *action.Configuration {
	t.Helper()
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(name, t.TempDir())
	}
	settings := cli.New()
	settings.KubeConfig = kubeconfig
	settings.SetNamespace(namespace)
	c := action.NewConfiguration()
	if err := c.Init(settings.RESTClientGetter(), namespace, "secret"); err != nil {
		t.Fatal(err)
	}
	return c
}
