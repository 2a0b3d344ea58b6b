package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// OpenExternal connects to a quorum and returns once it has answered a linearizable read: errdefs.ErrUnavailable when
// it does not in time. ctx bounds the start only.
func OpenExternal(ctx context.Context, cfg External) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	log := newCore(cfg.Log)
	conf := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		Logger:               zap.New(log),
		MaxCallSendMsgSize:   maxRequestBytes,
		DialKeepAliveTime:    cfg.LeaseTTL,
		DialKeepAliveTimeout: cfg.LeaseTTL,
	}
	if conf.TLS, err = clientTLS(cfg); err != nil {
		return nil, err
	}
	client, err := clientv3.New(conf)
	if err != nil {
		return nil, fmt.Errorf("etcd: endpoints %s: %w: %w",
			strings.Join(cfg.Endpoints, ","), errdefs.ErrInvalidArgument, err)
	}
	s := &Store{
		prefix:  cfg.Prefix,
		ttl:     cfg.LeaseTTL,
		timeout: cfg.Timeout,
		drain:   cfg.CloseTimeout,
		kv:      client.KV,
		watcher: client.Watcher,
		lease:   clientv3.RetryLeaseClient(client),
		upkeep:  client.Maintenance,
		members: cfg.Endpoints,
		defrag: func(ctx context.Context) error {
			for _, m := range cfg.Endpoints {
				if _, err := client.Defragment(ctx, m); err != nil {
					return err
				}
			}
			return nil
		},
		checkDisk: func() error { return nil },
		stop: func() error {
			log.closing.Store(true)
			return ignoreCanceled(client.Close())
		},
	}
	s.startLife()
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.StartTimeout,
		fmt.Errorf("no answer within %v: %w", cfg.StartTimeout, errdefs.ErrUnavailable))
	defer cancel()
	if _, err := s.Get(ctx, "start"); err != nil && !errdefs.IsNotFound(err) {
		err = fmt.Errorf("etcd: endpoints %s: %w", strings.Join(cfg.Endpoints, ","), err)
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// clientTLS returns nil when no endpoint and no file asks for TLS.
func clientTLS(cfg External) (*tls.Config, error) {
	info := transport.TLSInfo{CertFile: cfg.CertFile, KeyFile: cfg.KeyFile, TrustedCAFile: cfg.CAFile}
	secure := !info.Empty() || cfg.CAFile != ""
	for _, e := range cfg.Endpoints {
		secure = secure || strings.HasPrefix(e, "https://")
	}
	if !secure {
		return nil, nil
	}
	t, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("etcd: TLS files: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	return t, nil
}
