package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	grpcstatus "google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

// Process is one process of a Forge, with what it says of itself.
type Process struct {
	Rooms   []string       `json:"rooms"` // that it serves; where it does not answer, that it should
	Address string         `json:"address"`
	Version string         `json:"version,omitempty"` // "" where it does not say
	Schemas []sqldb.Schema `json:"schemas,omitempty"`
	Error   string         `json:"error,omitempty"` // why it does not answer

	contract contract
}

// name is a room of a process, with its version.
func (p *Process) name(room string) string {
	return room + " " + cmp.Or(p.Version, "of a version that does not say so")
}

// Misfit is what keeps processes from working together.
type Misfit struct {
	Text string `json:"text"`
	Fix  string `json:"fix"`
}

// Where is where the rooms of a Forge are.
type Where struct {
	settings.GRPC
	settings.Certificate
	settings.Siblings
}

// Versions asks each process of a Forge which version it is: the one at the gRPC address
// and, where that does not serve all rooms, those at the addresses of the others, each
// replica by itself.
func Versions(ctx context.Context, where Where) []*Process {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	all := where.ask(ctx, "gateway", where.GRPCAddress)
	var mu sync.Mutex // guards all
	var asked sync.WaitGroup
	for room, address := range map[string]string{"config": where.ConfigURL, "scheduler": where.SchedulerURL, "reporter": where.ReporterURL} {
		if slices.ContainsFunc(all, func(p *Process) bool { return slices.Contains(p.Rooms, room) }) {
			continue
		}
		asked.Go(func() {
			found := where.ask(ctx, room, address)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, found...)
		})
	}
	asked.Wait()
	slices.SortFunc(all, func(a, b *Process) int {
		return cmp.Or(cmp.Compare(a.Rooms[0], b.Rooms[0]), cmp.Compare(a.Address, b.Address))
	})
	return all
}

// ask asks each replica of what is at an address.
func (w Where) ask(ctx context.Context, room, address string) []*Process {
	addresses, err := replicas(ctx, address)
	if err != nil {
		return []*Process{{Rooms: []string{room}, Address: address, Error: plainNetwork(err)}}
	}
	found := make([]*Process, len(addresses))
	var asked sync.WaitGroup
	for n, one := range addresses {
		found[n] = &Process{Rooms: []string{room}, Address: one}
		asked.Go(func() {
			if err := w.look(ctx, found[n]); err != nil {
				found[n].Error = grpcstatus.Convert(err).Message()
			}
		})
	}
	asked.Wait()
	return found
}

func (w Where) look(ctx context.Context, p *Process) error {
	conn, err := w.DialAny(p.Address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	var said wire.About
	if err := rpc.AskAbout(ctx, conn, &said); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	p.Version, p.Schemas = said.Version, said.Schemas
	if p.contract, err = readContract(ctx, conn); err != nil {
		return err
	}
	if rooms := p.contract.rooms(); len(rooms) > 0 {
		p.Rooms = rooms
	}
	return nil
}

// replicas are the addresses that one stands for, as rpc.Dial reads it.
func replicas(ctx context.Context, address string) ([]string, error) {
	resolver, name := net.DefaultResolver, address
	if _, after, has := strings.Cut(address, "://"); has {
		server, after, _ := strings.Cut(after, "/")
		if name = after; server != "" {
			resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, server)
			}}
		}
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, fmt.Errorf("%s: use host:port", address)
	}
	if host == "" || host == "localhost" || net.ParseIP(host) != nil { // of localhost, one of two families answers
		return []string{name}, nil
	}
	hosts, err := resolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	slices.Sort(hosts)
	var all []string
	for _, host := range hosts {
		all = append(all, net.JoinHostPort(host, port))
	}
	return all, nil
}

// callees are the rooms that each room calls.
var callees = []struct{ caller, callee string }{
	{"gateway", "config"},
	{"gateway", "scheduler"},
	{"gateway", "reporter"},
	{"scheduler", "config"},
	{"scheduler", "reporter"},
	{"reporter", "config"},
}

// Misfits says which processes do not fit together, and what to do: one that calls what
// the other does not have, and one that runs on a schema which it is too old for.
func Misfits(all []*Process) (found []Misfit) {
	for _, p := range all {
		for _, s := range p.Schemas {
			if s.Known < s.Oldest {
				found = append(found, Misfit{
					fmt.Sprintf("%s at %s knows the schema up to %d, and the database is at %d, which is for those that know %d", p.name(s.Room), p.Address, s.Known, s.Current, s.Oldest),
					"stop it now, and start the newer version in its place: it can do harm to what is stored",
				})
			}
		}
	}
	for _, edge := range callees {
		for _, caller := range all {
			for _, callee := range all {
				if caller == callee || callee.Error != "" || !slices.Contains(caller.Rooms, edge.caller) || !slices.Contains(callee.Rooms, edge.callee) {
					continue
				}
				if missing := caller.contract.lacks(edge.caller, edge.callee, callee.contract); len(missing) > 0 {
					found = append(found, Misfit{
						fmt.Sprintf("%s at %s calls what %s at %s does not have: %s", caller.name(edge.caller), caller.Address,
							callee.name(edge.callee), callee.Address, strings.Join(missing, ", ")),
						fmt.Sprintf("replace %s at %s with the version of %s", edge.callee, callee.Address, edge.caller),
					})
				}
			}
		}
	}
	return found
}
