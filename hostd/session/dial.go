package session

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// connectTimeout is how long one attempt to reach a control plane may take.
const connectTimeout = 20 * time.Second

// Dial connects to all control planes. A session is opened with the next one of those that can be reached, so a host
// whose control plane has gone, or has ended the session, has another one at hand. A single address is resolved as a
// name, which may stand for several. One that cannot be reached is tried again at least every redialMax, however long
// that lasts. It does not block.
func Dial(addresses []string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	again := backoff.DefaultConfig
	again.BaseDelay, again.MaxDelay = redialFirst, redialMax
	options = append([]grpc.DialOption{
		grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig":[{%q:{}}]}`, roundrobin.Name)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: connectTimeout}),
	}, options...)
	target := ""
	if len(addresses) == 1 {
		target = addresses[0]
	} else {
		list := manual.NewBuilderWithScheme("umbra-control-planes")
		var state resolver.State
		for _, address := range addresses {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
		}
		list.InitialState(state)
		target, options = list.Scheme()+":///all", append(options, grpc.WithResolvers(list))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("dialling the control planes at %v: %w", addresses, err)
	}
	return conn, nil
}
