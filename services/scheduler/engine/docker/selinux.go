package docker

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/system"
)

// heedSELinux finds out whether containers are confined by it, and says at the start
// what that means: it may keep builds from Forge's socket without a word.
func (e *Engine) heedSELinux(ctx context.Context, info system.Info) {
	e.selinux = slices.ContainsFunc(info.SecurityOptions, func(option string) bool {
		return option == "selinux" || strings.HasPrefix(option, "name=selinux")
	})
	if e.selinux {
		e.config.Log.WarnContext(ctx, "SELinux confines the containers of this Docker engine: the folder of the runner's socket is relabelled for them; "+
			"where builds do not attach all the same, set FORGE_RUNNER_ADDRESS to host:port, which needs no socket")
	}
}
