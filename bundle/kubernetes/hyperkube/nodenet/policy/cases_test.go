package policy

// semantics are policies and what they let pass. Both Compile alone and a kernel are held to them.
var semantics = []struct {
	name     string
	policies []string
	pass     []string
	refuse   []string
}{
	{
		name: "no policy isolates nobody",
		pass: []string{"x/a > y/b tcp 80", "outside > x/a tcp 81", "x/a > outside tcp 80", "y/remote > x/a udp 53"},
	},
	{
		name:     "an empty selector without rules denies all ingress of its namespace, and no egress",
		policies: []string{"x\npodSelector: {}"},
		pass:     []string{"x/a > y/a tcp 80", "x/a > outside tcp 80", "y/a > y/b tcp 80", "x/a > x/a tcp 80"},
		refuse:   []string{"y/a > x/a tcp 80", "x/b > x/a tcp 80", "outside > x/b tcp 80", "y/remote > x/a udp 53"},
	},
	{
		name:     "egress alone by policyTypes",
		policies: []string{"x\npodSelector: {}\npolicyTypes: [Egress]"},
		pass:     []string{"y/a > x/a tcp 80", "outside > x/a tcp 80", "y/a > outside tcp 80"},
		refuse:   []string{"x/a > y/a tcp 80", "x/a > x/b tcp 80", "x/b > outside tcp 80"},
	},
	{
		name:     "egress rules without policyTypes isolate both ways",
		policies: []string{"x\npodSelector: {matchLabels: {app: a}}\negress: [{to: [{podSelector: {}}]}]"},
		pass:     []string{"x/a > x/b tcp 80", "y/a > x/b tcp 80"},
		refuse:   []string{"x/a > y/a tcp 80", "x/b > x/a tcp 80", "y/a > x/a tcp 80"},
	},
	{
		name:     "an empty ingress rule allows everything",
		policies: []string{"x\npodSelector: {}\ningress: [{}]", "x\npodSelector: {}"},
		pass:     []string{"y/a > x/a tcp 80", "outside > x/b tcp 8085", "y/remote > x/a udp 53"},
	},
	{
		name:     "policies add up",
		policies: []string{"x\npodSelector: {}", "x\npodSelector: {matchLabels: {app: a}}\ningress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]"},
		pass:     []string{"x/b > x/a tcp 80"},
		refuse:   []string{"y/b > x/a tcp 80", "x/a > x/b tcp 80"},
	},
	{
		name:     "a pod selector alone means the policy's own namespace",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{podSelector: {}}]}]"},
		pass:     []string{"x/b > x/a tcp 80", "x/a > x/b tcp 81"},
		refuse:   []string{"y/a > x/a tcp 80", "z/a > x/a tcp 80", "outside > x/a tcp 80"},
	},
	{
		name:     "a namespace selector means all its pods, on other nodes too",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]"},
		pass:     []string{"y/a > x/a tcp 80", "y/b > x/b tcp 80", "y/remote > x/a tcp 80"},
		refuse:   []string{"x/b > x/a tcp 80", "z/a > x/a tcp 80", "outside > x/a tcp 80"},
	},
	{
		name:     "an empty namespace selector means all pods, and nobody else",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{namespaceSelector: {}}]}]"},
		pass:     []string{"z/a > x/a tcp 80", "x/b > x/a tcp 80", "y/remote > x/a tcp 80"},
		refuse:   []string{"outside > x/a tcp 80"},
	},
	{
		name:     "both selectors in one peer must hold, in two either",
		policies: []string{"x\npodSelector: {matchLabels: {app: a}}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: b}}}]}]", "x\npodSelector: {matchLabels: {app: b}}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: a}}}]}]"},
		pass:     []string{"y/b > x/a tcp 80", "y/a > x/b tcp 80", "x/a > x/b tcp 80"},
		refuse:   []string{"y/a > x/a tcp 80", "x/b > x/a tcp 80", "z/a > x/b tcp 80"},
	},
	{
		name:     "expressions",
		policies: []string{"x\npodSelector: {matchExpressions: [{key: app, operator: NotIn, values: [b]}]}\ningress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}]}]"},
		pass:     []string{"z/a > x/a tcp 80", "y/a > x/b tcp 80"},
		refuse:   []string{"y/a > x/a tcp 80"},
	},
	{
		name:     "a block, less its exceptions, in both directions",
		policies: []string{"x\npodSelector: {}\npolicyTypes: [Ingress, Egress]\ningress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/29]}}]}]\negress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.4/32, 10.244.0.5/32]}}]}]"},
		pass:     []string{"outside > x/a tcp 80", "x/a > outside tcp 80", "x/a > z/a tcp 80", "x/a > y/remote tcp 80"},
		refuse:   []string{"y/a > x/a tcp 80", "x/a > y/a tcp 80", "x/a > y/b tcp 81"},
	},
	{
		name:     "an exception hides no later rule",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.9/32]}}]}, {from: [{ipBlock: {cidr: 192.0.2.8/29}}], ports: [{port: 81}]}]"},
		pass:     []string{"outside > x/a tcp 81"},
		refuse:   []string{"outside > x/a tcp 80"},
	},
	{
		name:     "a block that is excepted whole is nobody, not everybody",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25, 192.0.2.128/25]}}]}]"},
		refuse:   []string{"outside > x/a tcp 80", "y/a > x/a tcp 80"},
	},
	{
		name:     "blocks of the other family are nobody",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{ipBlock: {cidr: '2001:db8::/32'}}]}]"},
		refuse:   []string{"outside > x/a tcp 80"},
	},
	{
		name:     "overlapping blocks",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 192.0.2.8/29}}, {ipBlock: {cidr: 192.0.3.0/24}}]}]"},
		pass:     []string{"outside > x/a tcp 80"},
		refuse:   []string{"y/a > x/a tcp 80"},
	},
	{
		name:     "ports are TCP unless they say otherwise",
		policies: []string{"x\npodSelector: {}\ningress: [{ports: [{port: 80}, {port: 53, protocol: UDP}]}]"},
		pass:     []string{"y/a > x/a tcp 80", "y/a > x/a udp 53", "outside > x/b tcp 80"},
		refuse:   []string{"y/a > x/a tcp 81", "y/a > x/a udp 80", "y/a > x/a tcp 53", "y/a > x/a sctp 80"},
	},
	{
		name:     "a protocol without port is all its ports",
		policies: []string{"x\npodSelector: {}\ningress: [{ports: [{protocol: TCP}, {port: 80}]}]"},
		pass:     []string{"y/a > x/a tcp 80", "y/a > x/a tcp 8085"},
		refuse:   []string{"y/a > x/a udp 53"},
	},
	{
		name:     "endPort, overlapping",
		policies: []string{"x\npodSelector: {}\ningress: [{ports: [{port: 8080, endPort: 8090}, {port: 8085}, {port: 80}]}]"},
		pass:     []string{"y/a > x/a tcp 8080", "y/a > x/a tcp 8085", "y/a > x/a tcp 80"},
		refuse:   []string{"y/a > x/a tcp 81"},
	},
	{
		name:     "SCTP",
		policies: []string{"x\npodSelector: {}\ningress: [{ports: [{port: 80, protocol: SCTP}, {port: 90, endPort: 99, protocol: SCTP}]}]"},
		pass:     []string{"y/a > x/a sctp 80", "y/a > x/a sctp 95"},
		refuse:   []string{"y/a > x/a tcp 80", "y/a > x/a sctp 81"},
	},
	{
		name:     "a named port is each pod's own number",
		policies: []string{"x\npodSelector: {}\ningress: [{from: [{namespaceSelector: {}}], ports: [{port: http}, {port: dns, protocol: UDP}]}]"},
		pass:     []string{"y/a > x/a tcp 80", "y/a > x/b tcp 8080", "y/a > x/b udp 53"},
		refuse:   []string{"y/a > x/a tcp 8080", "y/a > x/b tcp 80", "outside > x/a tcp 80"},
	},
	{
		name:     "a named port of egress is the destination's",
		policies: []string{"x\npodSelector: {}\npolicyTypes: [Egress]\negress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]"},
		pass:     []string{"x/a > y/a tcp 80", "x/a > y/b tcp 8080", "x/a > y/remote tcp 80"},
		refuse:   []string{"x/a > y/b tcp 80", "x/a > z/a tcp 80", "x/a > outside tcp 80"},
	},
	{
		name:     "a name that no pod has, or with another protocol, is no port",
		policies: []string{"x\npodSelector: {}\ningress: [{ports: [{port: nosuch}, {port: http, protocol: UDP}]}]"},
		refuse:   []string{"y/a > x/a tcp 80", "y/a > x/a udp 80"},
	},
	{
		name:     "both sides must agree",
		policies: []string{"x\npodSelector: {}\npolicyTypes: [Egress]\negress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}]}]", "y\npodSelector: {matchLabels: {app: a}}\ningress: [{ports: [{port: 81}]}]"},
		pass:     []string{"x/a > y/b tcp 80", "x/a > y/a tcp 81", "z/a > y/a tcp 81"},
		refuse:   []string{"x/a > y/a tcp 80", "x/a > z/a tcp 80"},
	},
	{
		name:     "pods of other nodes are isolated there",
		policies: []string{"y\npodSelector: {matchLabels: {app: remote}}\npolicyTypes: [Ingress, Egress]"},
		pass:     []string{"y/remote > x/a tcp 80", "x/a > y/remote tcp 80"},
	},
}
