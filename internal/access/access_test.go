package access

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestEverybodyKnownIsAnAdministratorAndNobodyElse(t *testing.T) {
	ann := WithPrincipal(t.Context(), Principal{UID: "ann"})
	web := Services.Of("/prod/web")
	if err := Check(ann, Administrators{}, Delete, web); err != nil {
		t.Errorf("ann: %v, want nil", err)
	}
	if err := Check(t.Context(), Administrators{}, Read, web); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a stranger: %v, want denied", err)
	}
	if err := Check(ann, Nobody{}, Read, web); !errdefs.IsPermissionDenied(err) {
		t.Errorf("nobody may: %v, want denied", err)
	}
	if err := Check(t.Context(), nil, Delete, web); err != nil {
		t.Errorf("without an authorizer: %v, want nil", err)
	}
}

func TestADenialNamesRightPathAndWhoMayGiveIt(t *testing.T) {
	err := Denied(Principal{UID: "ann"}, Exec, Tasks.Of("/prod/web"))
	for _, want := range []string{"ann", "exec", "dcos:mesos:agent:container:app_id:/prod/web", "administrator"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("denial is %q, want %q in it", err, want)
		}
	}
}

func TestPathsStartWithASlash(t *testing.T) {
	for path, want := range map[string]string{"": "marina:images:/", "x": "marina:images:/x", "/x/y": "marina:images:/x/y"} {
		if got := Images.Of(path).String(); got != want {
			t.Errorf("Of(%q) = %s, want %s", path, got, want)
		}
	}
}
