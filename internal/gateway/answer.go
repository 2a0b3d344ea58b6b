package gateway

import (
	"encoding/json"
	"html"
	"net/http"
	"strings"
)

const howToGetAToken = "A token is needed: run `marina token` as root on a master, or " +
	"POST {\"uid\": ..., \"password\": ...} to /acs/api/v1/auth/login, " +
	"and send the header \"Authorization: token=<token>\"."

// writeError answers in the form of the gateway's own errors.
func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{"message": message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // cannot be: the gateway's answers are plain values
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // the client may be gone
}

// writeUnauthorized answers 401. The challenge's value makes DC/OS's CLI ask for user id and password.
func writeUnauthorized(w http.ResponseWriter, r *http.Request, why error) {
	w.Header().Set("WWW-Authenticate", "acsjwt")
	w.Header().Set("Cache-Control", "no-store")
	message := howToGetAToken
	if why != nil {
		message = why.Error() + ". " + howToGetAToken
	}
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		writeHTML(w, http.StatusUnauthorized, message)
		return
	}
	writeError(w, http.StatusUnauthorized, message)
}

// writeHTML answers with a page, for browsers.
func writeHTML(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<!doctype html><title>Marina</title><h1>Marina</h1><p>" + html.EscapeString(message) +
		"</p>\n"))
}
