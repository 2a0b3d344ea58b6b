package client

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/durable"
)

// Account is a way into a datacenter: saved by `marina login`, or got by root from the admin socket.
type Account struct {
	URL   string    `json:"url"`
	Token string    `json:"token"`
	CA    string    `json:"ca"` // PEM
	Until time.Time `json:"until,omitzero"`
}

// LoginFile names the file in which `marina login` saves an account. Without a directory of the user's own it is an
// error.
func LoginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &exit.Error{Code: exit.Failed,
			Message: fmt.Sprintf("there is no directory of yours to keep a login in: %v", err),
			Next:    "set HOME, or give MARINA_URL, MARINA_TOKEN and MARINA_CA to every command"}
	}
	return filepath.Join(dir, "marina", "login.json"), nil
}

func loadLogin() (a Account, err error) {
	file, err := LoginFile()
	if err != nil {
		return a, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(b, &a)
}

// Save writes an account so that only its owner can read it.
func (a Account) Save(file string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.ReplaceFile(file, b, 0o600)
}
