package kernel

import "strings"

// ParentRole is the next role on the way to the root, empty after it.
func ParentRole(role string) string {
	if role == "/" || role == "" {
		return ""
	}
	if i := strings.LastIndexByte(role, '/'); i > 0 {
		return role[:i]
	}
	return "/"
}

// Within reports whether a role is another or below it.
func Within(role, other string) bool {
	return other == "/" || role == other || strings.HasPrefix(role, other+"/")
}

// Tenant is the top-level group that a role is in: "/prod" for "/prod/web".
func Tenant(role string) string {
	if role == "" {
		return ""
	}
	if at := strings.IndexByte(role[1:], '/'); at >= 0 {
		return role[:at+1]
	}
	return role
}
