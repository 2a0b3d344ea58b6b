package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// RootTTL is the life of a token from the socket unless the request sets one.
const RootTTL = 24 * time.Hour

const (
	socketTimeout = 10 * time.Second
	socketGrace   = 5 * time.Second // for requests in progress when the socket ends
)

type peerKey struct{}

// ServeSocket issues tokens for the user root to the owner of this machine, by POST /token on the unix socket at
// path, until ctx ends. The kernel names the peer (SO_PEERCRED): uid 0 and the daemon's own uid are served, others
// get 403. The body may be a TokenRequest without a uid. Other requests of those peers go to rest, which may be nil.
// The socket has mode 0600; its directory is created with mode 0700, and one that others can write to is refused.
func (d *Directory) ServeSocket(ctx context.Context, path string, rest http.Handler) error {
	l, err := listenSocket(path)
	if err != nil {
		return fmt.Errorf("token socket: %w", err)
	}
	return d.serveSocket(ctx, l, rest, 0, os.Geteuid())
}

// serveSocket serves peers that have one of the uids.
func (d *Directory) serveSocket(ctx context.Context, l net.Listener, rest http.Handler, uids ...int) error {
	a := api{d}
	mux := http.NewServeMux()
	mux.Handle("POST /token", a.handler(a.postSocketToken))
	if rest != nil {
		mux.Handle("/", rest)
	}
	recorded := d.audit.Wrap(mux, func(r *http.Request) (string, string) {
		return fmt.Sprintf("uid %v of the machine", r.Context().Value(peerKey{})), "socket"
	})
	guarded := a.handler(func(w http.ResponseWriter, r *http.Request) error {
		if uid, ok := r.Context().Value(peerKey{}).(int); !ok || !slices.Contains(uids, uid) {
			return &apiError{http.StatusForbidden, "Forbidden", "Only root gets a token here: use sudo.", "ERR_FORBIDDEN"}
		}
		recorded.ServeHTTP(w, r)
		return nil
	})
	srv := &http.Server{
		Handler:        guarded,
		ReadTimeout:    socketTimeout,
		WriteTimeout:   socketTimeout,
		MaxHeaderBytes: 16 << 10,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := peerUID(c)
			if err != nil {
				d.log.Warn("peer of the token socket is not known", "err", err)
				return ctx
			}
			return context.WithValue(ctx, peerKey{}, uid)
		},
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("token socket: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), socketGrace)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close()
	}
	<-done
	return context.Cause(ctx)
}

// postSocketToken issues a token for root.
func (a api) postSocketToken(w http.ResponseWriter, r *http.Request) error {
	body := TokenRequest{}
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &body); err != nil {
			return err
		}
	}
	if body.UID != "" && body.UID != RootUID {
		return badRequest("ERR_INVALID_DATA", "uid: tokens from here are for %s: use %s/tokens for others.", RootUID, Base)
	}
	ttl := RootTTL
	if body.TTLSeconds != nil {
		var err error
		if ttl, err = body.ttl(); err != nil {
			return err
		}
	}
	issued, err := a.IssueRoot(r.Context(), ttl, body.Description)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, issued)
}

// listenSocket listens at path and replaces the socket of a daemon that was killed; if one answers there, it fails.
func listenSocket(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("directory %s has mode %v, others could put their own socket there: chmod 700: %w",
			dir, info.Mode(), errdefs.ErrPermissionDenied)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another daemon answers there: %w", path, errdefs.ErrAlreadyExists)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s: is there and is no socket: move it away: %w", path, errdefs.ErrAlreadyExists)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// peerUID asks the kernel for the uid of the process at the other end of the connection.
func peerUID(c net.Conn) (int, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("connection %T: not a unix socket: %w", c, errdefs.ErrInvalidArgument)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("SO_PEERCRED: %w", credErr)
	}
	return int(cred.Uid), nil
}
