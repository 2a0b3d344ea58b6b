// The process that holds a pod's namespaces. It waits for children that others leave behind, where the pod's containers
// share its process namespace, and ends when told. No handler runs: signals are taken one at a time.
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t signals;
	int s;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
		return 1;
	for (;;) {
		if (sigwait(&signals, &s) != 0)
			return 1;
		if (s != SIGCHLD)
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}
