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
	// DefaultTTL is how long a token lives unless its asker says otherwise, as in DC/OS.
	DefaultTTL = 5 * 24 * time.Hour

	// MaxTTL is the longest life of a token.
	MaxTTL = 365 * 24 * time.Hour

	// MaxTokens is how many tokens one user may have at a time.
	MaxTokens = 1000

	// MaxUsers is how many users there may be.
	MaxUsers = 10_000

	maxDescription = 1024 // bytes

	followLimit  = 2 * time.Second  // longest wait for this master to see its own write
	watchRetry   = time.Second      // after a watch that ended
	sweepEvery   = 10 * time.Minute // between removals of expired tokens
	sweepAtOnce  = 1000             // rows in one transaction
	commitTries  = 5                // of a read and a guarded write
	signingKeyID = "token"
)

// Config is what a Directory is told at its start.
type Config struct {
	// Datacenter is the id of the datacenter, the issuer of its tokens. Required.
	Datacenter string
	// Access judges who may see and change users and tokens; nil: whoever has a token.
	Access access.Authorizer
	// Audit records what is asked on the admin socket; nil: nothing. The gateway records the rest.
	Audit *audit.Log
}

// Directory holds the users and tokens of a datacenter: in the store, and as a view in memory that follows the store, so
// that a request is authenticated without asking it. It is safe for concurrent use.
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

// Open reads the directory from the store, and creates its signing key at the first start. It answers at once, and follows
// changes while Run runs.
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
	d.load(snap)
	return d, nil
}

// Run follows the store and removes expired tokens until ctx ends. While the store cannot be reached, the directory goes
// on with what it knows: tokens stay good until they expire.
func (d *Directory) Run(ctx context.Context) error {
	for {
		err := d.follow(ctx)
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

// follow watches until the watch ends.
func (d *Directory) follow(ctx context.Context) error {
	w, err := d.store.Watch(ctx, prefix)
	if err != nil {
		return err
	}
	defer w.Close()
	d.load(w.Snapshot())
	sweep := time.Now().Add(sweepEvery)
	for {
		next, cancel := context.WithDeadline(ctx, sweep)
		batch, err := w.Next(next)
		cancel()
		switch {
		case err == nil:
			d.report(d.view.apply(batch))
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			d.sweep(ctx)
			sweep = time.Now().Add(sweepEvery)
		default:
			return err
		}
	}
}

func (d *Directory) load(snap *store.Snapshot) { d.report(d.view.load(snap)) }

// report tells of rows that do not decode; they are left alone and are as good as absent.
func (d *Directory) report(broken []error) {
	for _, err := range broken {
		d.log.Error("identity row is not readable", "err", err)
	}
}

// sweep removes the rows of tokens that no request can use any more. Every master may do so at once.
func (d *Directory) sweep(ctx context.Context) {
	ops := make([]store.Op, 0, sweepAtOnce)
	for _, id := range d.view.dead(time.Now(), sweepAtOnce) {
		ops = append(ops, tokens.Delete(id))
	}
	if len(ops) == 0 {
		return
	}
	if _, err := d.store.Commit(ctx, store.Txn{Ops: ops}); err != nil {
		d.log.Warn("expired tokens not removed, trying again later", "err", err)
	}
}

// commit writes ops under guards and waits, for a bounded time, until this master's view has seen it.
func (d *Directory) commit(ctx context.Context, guards []store.Guard, ops ...store.Op) error {
	rev, err := d.store.Commit(ctx, store.Txn{Guards: guards, Ops: ops})
	if err != nil {
		return err
	}
	if !d.view.wait(ctx, rev, followLimit) {
		d.log.Warn("identity view is behind its own write", "revision", rev)
	}
	return nil
}
