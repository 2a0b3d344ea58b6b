// Package marathon is the command's side of Marathon's API: what the verbs over apps, tasks and deployments read of its
// answers, and what they share: the tail of every change (send, tell, follow the deployment), the table of tasks,
// completion.
//
// The types hold what is shown and nothing more; --json prints the API's answer itself. Fields that Marina adds to
// Marathon's are used where they are and missed silently where they are not.
package marathon
