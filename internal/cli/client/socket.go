package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Info describes the datacenter on this machine, by its admin socket.
type Info struct {
	URL      string `json:"url"`      // https://10.0.0.5:8443
	HTTP     string `json:"http"`     // http://127.0.0.1:8080, or empty
	CA       string `json:"ca"`       // PEM
	Version  string `json:"version"`  //
	Build    string `json:"build"`    // of the binary that runs
	PID      int    `json:"pid"`      //
	State    string `json:"state"`    //
	Healthy  bool   `json:"healthy"`  // its processes are; single units may still have alarms
	Resolver string `json:"resolver"` // the datacenter's name server
	Units    []Unit `json:"units"`
}

// Unit is one part of the datacenter and how it is.
type Unit struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Output  string `json:"output"` // what is wrong; of a scheduler its alarms, one a line
}

// Socket is the admin socket of the datacenter whose state directory is given.
func Socket(state string) string { return filepath.Join(state, "run", "admin.sock") }

// localLimit bounds what the admin socket may take for a token.
const localLimit = 10 * time.Second

// infoLimit bounds what it may take to tell how the datacenter is.
const infoLimit = 5 * time.Second

// Info asks the admin socket of the datacenter on this machine how that is.
func (o *Options) Info(ctx context.Context) (i Info, err error) {
	ctx, cancel := context.WithTimeout(ctx, infoLimit)
	defer cancel()
	return i, o.askSocket(ctx, http.MethodGet, "/info", nil, &i)
}

// local asks the admin socket for the address and a token, which is kept beside the state for as long as it is good.
func (o *Options) local(ctx context.Context) (Account, error) {
	cached := filepath.Join(o.State, "run", "admin.token")
	ctx, cancel := context.WithTimeout(ctx, localLimit)
	defer cancel()
	var info Info
	if err := o.askSocket(ctx, http.MethodGet, "/info", nil, &info); err != nil {
		return Account{}, err
	}
	var a Account
	if b, err := os.ReadFile(cached); err == nil && json.Unmarshal(b, &a) == nil && time.Until(a.Until) > time.Minute &&
		a.CA == info.CA {
		a.URL = info.URL // it may listen elsewhere now
		return a, nil
	}
	var token struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires"`
	}
	ask := map[string]any{"description": "marina command on the machine", "ttlSeconds": int((12 * time.Hour).Seconds())}
	if err := o.askSocket(ctx, http.MethodPost, "/token", ask, &token); err != nil {
		return Account{}, err
	}
	a = Account{URL: info.URL, CA: info.CA, Token: token.Token, Until: token.Expires}
	return a, a.Save(cached)
}

// maxSocketAnswer bounds what is read of the admin socket's answers.
const maxSocketAnswer = 1 << 20

func (o *Options) askSocket(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", Socket(o.State))
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxSocketAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return AnswerError(resp.StatusCode, b)
	}
	return json.Unmarshal(b, out)
}
