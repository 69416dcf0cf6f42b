package forgexec

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// service is a program beside the build, which the first step waits for.
type service struct {
	name, address string
	within        time.Duration
}

// serviceWithin is how long a service may take where the engine does not say.
const serviceWithin = 2 * time.Minute

func parseServices(list string) ([]service, error) {
	var services []service
	for entry := range strings.SplitSeq(list, ",") {
		if entry == "" {
			continue
		}
		name, address, _ := strings.Cut(entry, "=")
		address, within, limited := strings.Cut(address, "/")
		s := service{name, address, serviceWithin}
		_, _, err := net.SplitHostPort(address)
		if err == nil && limited {
			s.within, err = time.ParseDuration(within)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not NAME=HOST:PORT/WITHIN: %w", awaitEnv, entry, err)
		}
		services = append(services, s)
	}
	return services, nil
}

// awaitServices returns when all take connections, and says so at the top of the
// log; or why the build ends without a step.
func (r *runner) awaitServices(ctx context.Context) *schedulerv1.Ended {
	ended, notices := make([]*schedulerv1.Ended, len(r.services)), make([]string, len(r.services))
	var all sync.WaitGroup
	for i, s := range r.services {
		all.Go(func() {
			begin := time.Now()
			within, cancel := context.WithTimeout(ctx, s.within)
			defer cancel()
			err := await(within, []string{s.address})
			switch {
			case err == nil:
				notices[i] = fmt.Sprintf("service %s is ready after %v", s.name, time.Since(begin).Round(100*time.Millisecond))
			case ctx.Err() != nil:
				ended[i] = halted(ctx).ended()
			default:
				_, port, _ := net.SplitHostPort(s.address)
				ended[i] = &schedulerv1.Ended{
					Cause:   schedulerv1.Ended_CAUSE_SERVICE_NOT_READY,
					Message: fmt.Sprintf("service %s did not listen at port %s within %v", s.name, port, s.within),
				}
			}
		})
	}
	all.Wait()
	for _, end := range ended {
		if end != nil {
			return end
		}
	}
	r.notices = append(r.notices, notices...)
	return nil
}
