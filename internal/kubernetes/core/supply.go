package core

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Node is a node's instance, whose process runs.
type Node struct {
	Member   string
	Instance kernel.InstanceID
	Task     kernel.TaskID
	Agent    kernel.AgentID
}

func (m *member) node() Node {
	return Node{m.name, m.instance.ID, m.instance.Statuses[0].Task, m.instance.Agent}
}

// Supply says what became of giving a node images that were loaded into its cluster before it came.
type Supply struct {
	Node   Node
	Files  []string // archives that it has now
	Lost   []string // those that are not there, or cannot be read: nobody will ever have them
	Broken []string // of those, the ones that could not be read
	Err    error    // why it lacks others
}

// Joined lists the nodes that have joined the cluster and whose process runs.
func (c *Cluster) Joined() []Node {
	var out []Node
	for _, m := range c.nodes() {
		state, _ := m.state()
		if _, ok := m.running(); ok && (state == "ready" || state == "down") {
			out = append(out, m.node())
		}
	}
	return out
}

// Load takes in an archive that nodes have, in place of older ones.
func (c *Cluster) Load(file string, old []string, have []Node) {
	c.dropArchives(old)
	c.archives = append(c.archives, file)
	for _, n := range have {
		if m := c.members[n.Member]; m != nil && m.instance != nil && m.instance.ID == n.Instance {
			m.give(file)
		}
	}
}

func (c *Cluster) dropArchives(files []string) {
	c.archives = slices.DeleteFunc(slices.Clone(c.archives), func(f string) bool { return slices.Contains(files, f) })
}

// BeginSupply notes that a node is being given images, and returns the archives that it lacks.
func (c *Cluster) BeginSupply(node string) (Node, []string) {
	m := c.members[node]
	m.supplying = m.instance.ID
	return m.node(), m.lacks()
}

// EndSupply takes in what became of it.
func (c *Cluster) EndSupply(s Supply, now time.Time) {
	for _, file := range s.Broken {
		c.AddEvent(now, "the archive %s of loaded images cannot be read and is removed: load its images again", file)
	}
	c.dropArchives(s.Lost)
	m := c.members[s.Node.Member]
	if m == nil || m.supplying != s.Node.Instance {
		return
	}
	m.supplying = ""
	if m.instance == nil || m.instance.ID != s.Node.Instance {
		return
	}
	for _, file := range s.Files {
		m.give(file)
	}
	c.Settle(m.name, supplyStep, s.Err, now)
	if s.Err == nil && len(m.lacks()) == 0 && len(s.Files) > 0 {
		c.AddEvent(now, "%s has the images that were loaded into the cluster", m.name)
	}
}
