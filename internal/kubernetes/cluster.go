package kubernetes

import (
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/definition"
)

// Framework is the name under which clusters are the kernel's.
const Framework = core.Framework

// Limits of what one may ask for.
const (
	MaxNodes    = definition.MaxNodes // of one cluster
	MaxName     = definition.MaxName  // bytes of a cluster's name
	MaxClusters = core.MaxClusters
)

// A cluster's definition, see there.
type (
	Definition   = definition.Cluster
	Nodes        = definition.Nodes
	ControlPlane = definition.ControlPlane
)

// A cluster as the API shows it, see package core.
type (
	View        = core.View
	State       = core.Standing
	Member      = core.Member
	Cost        = core.Cost
	Pods        = core.Pods
	Balanced    = core.Balanced
	Event       = core.Event
	VersionView = core.VersionView
)

// The states.
const (
	Creating = core.Creating
	Ready    = core.Ready
	Changing = core.Changing
	Degraded = core.Degraded
	Deleting = core.Deleting
	Parked   = core.Parked
)
