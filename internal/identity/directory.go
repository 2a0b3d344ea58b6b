package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/store"
)

const (
	// DefaultTTL is the life of a token unless the request sets one, as in DC/OS.
	DefaultTTL = 5 * 24 * time.Hour

	// MaxTTL is the longest life of a token.
	MaxTTL = 365 * 24 * time.Hour

	// MaxTokens limits the tokens of one user at a time.
	MaxTokens = 1000

	// MaxUsers limits the users.
	MaxUsers = 10_000

	maxDescription = 1024 // bytes

	followLimit  = 2 * time.Second  // longest wait for this master to see its own write
	watchRetry   = time.Second      // after a watch that ended
	sweepEvery   = 10 * time.Minute // between removals of expired tokens
	sweepAtOnce  = 1000             // rows in one transaction
	commitTries  = 5                // of a read and a guarded write
	signingKeyID = "token"
)

// Config are the settings of a Directory.
type Config struct {
	// Datacenter is the id of the datacenter, the issuer of its tokens. Required.
	Datacenter string
	// Access authorizes reading and changing users and tokens; nil: everybody with a token.
	Access access.Authorizer
	// Audit records the requests on the admin socket; nil: nothing. The gateway records the rest.
	Audit *audit.Log
}

// Directory keeps the users and tokens of a datacenter: in the store, and as a view in memory that follows the store,
// so that requests are authenticated without reading it. It is safe for concurrent use.
type Directory struct {
	datacenter string
	access     access.Authorizer
	audit      *audit.Log
	store      store.Store
	log        *slog.Logger
	signer     *signer
	hasher     *hasher
	accounts   *throttle
	sources    *throttle
	view       view
}

// Open reads the directory from the store, and creates its signing key at the first start. It answers at once, and
// follows changes while Run runs.
func Open(ctx context.Context, cfg Config, st store.Store, root *RootKey, log *slog.Logger) (*Directory, error) {
	if cfg.Datacenter == "" {
		return nil, fmt.Errorf("identity: Config.Datacenter is required: %w", errdefs.ErrInvalidArgument)
	}
	_, key, err := KeyPair(ctx, st, root, signingKeyID, func() ([]byte, crypto.Signer, error) {
		key, err := rsa.GenerateKey(rand.Reader, signingKeyBits)
		if err != nil {
			return nil, nil, fmt.Errorf("generate: %w", err)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		return public, key, err
	})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	signer, err := newSigner(cfg.Datacenter, key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	d := &Directory{
		datacenter: cfg.Datacenter,
		access:     cfg.Access,
		audit:      cfg.Audit,
		store:      st,
		log:        log,
		signer:     signer,
		hasher:     newHasher(),
		accounts:   newThrottle(accountEvery, accountBurst),
		sources:    newThrottle(sourceEvery, sourceBurst),
	}
	snap, err := st.Snapshot(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	d.view.init()
	d.loadView(snap)
	return d, nil
}

// Run follows the store and removes expired tokens until ctx ends. While the store cannot be reached, the view stays
// as it is and its tokens stay good until they expire.
func (d *Directory) Run(ctx context.Context) error {
	for {
		err := d.followStore(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d.log.Warn("identity watch ended, watching again", "err", err)
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}

// followStore applies changes to the view until the watch ends.
func (d *Directory) followStore(ctx context.Context) error {
	w, err := d.store.Watch(ctx, prefix)
	if err != nil {
		return err
	}
	defer w.Close()
	d.loadView(w.Snapshot())
	sweep := time.Now().Add(sweepEvery)
	for {
		next, cancel := context.WithDeadline(ctx, sweep)
		batch, err := w.Next(next)
		cancel()
		switch {
		case err == nil:
			d.logBroken(d.view.apply(batch))
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			d.removeExpired(ctx)
			sweep = time.Now().Add(sweepEvery)
		default:
			return err
		}
	}
}

func (d *Directory) loadView(snap *store.Snapshot) { d.logBroken(d.view.load(snap)) }

// logBroken logs rows that do not decode; they are left alone and treated as absent.
func (d *Directory) logBroken(broken []error) {
	for _, err := range broken {
		d.log.Error("identity row is not readable", "err", err)
	}
}

// removeExpired deletes the rows of tokens that no request can use any more. Several masters may do so at once.
func (d *Directory) removeExpired(ctx context.Context) {
	ops := make([]store.Op, 0, sweepAtOnce)
	for _, id := range d.view.deadTokens(time.Now(), sweepAtOnce) {
		ops = append(ops, tokens.Delete(id))
	}
	if len(ops) == 0 {
		return
	}
	if _, err := d.store.Commit(ctx, store.Txn{Ops: ops}); err != nil {
		d.log.Warn("expired tokens not removed, trying again later", "err", err)
	}
}

// commitAndWait commits ops under guards and waits, at most followLimit, until this master's view has them.
func (d *Directory) commitAndWait(ctx context.Context, guards []store.Guard, ops ...store.Op) error {
	rev, err := d.store.Commit(ctx, store.Txn{Guards: guards, Ops: ops})
	if err != nil {
		return err
	}
	if !d.view.waitRevision(ctx, rev, followLimit) {
		d.log.Warn("identity view is behind its own write", "revision", rev)
	}
	return nil
}
