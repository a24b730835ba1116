package peers

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gubernator-io/gubernator/v2"
	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

// gubernatorCluster starts so many of gubernator's daemons on loopback, each in this process and each knowing the
// others. A key has one owner among them; who asks another daemon is passed on to the owner in a batch.
func gubernatorCluster(b *testing.B, daemons int) []*gubernator.Daemon {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	log.SetLevel(logrus.ErrorLevel)
	up, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var all []*gubernator.Daemon
	var peers []gubernator.PeerInfo
	for range daemons {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(b)))
		d, err := gubernator.SpawnDaemon(up, gubernator.DaemonConfig{
			InstanceID:        addr,
			GRPCListenAddress: addr,
			HTTPListenAddress: "127.0.0.1:0",
			AdvertiseAddress:  addr,
			CacheSize:         2 * len(names()), // by default 50,000: it would forget every second key
			Logger:            log,
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(d.Close)
		all = append(all, d)
		peers = append(peers, gubernator.PeerInfo{GRPCAddress: addr, HTTPAddress: d.HTTPListener.Addr().String()})
	}
	for _, d := range all {
		d.SetPeers(peers)
		b.Cleanup(func() { d.SetPeers(nil) }) // Close leaves the connections to other daemons open
	}
	return all
}

// gubernatorGRPC asks a single daemon, the owner of all keys, as gubernator.DialV1Server would; but that never closes its
// connection.
func gubernatorGRPC(b *testing.B) goroutine {
	d := gubernatorCluster(b, 1)[0]
	conn, err := grpc.NewClient(d.GRPCListeners[0].Addr().String(),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	client := gubernator.NewV1Client(conn)
	return gubernatorAsk(func(r *gubernator.GetRateLimitsReq) (*gubernator.GetRateLimitsResp, error) {
		return client.GetRateLimits(ctx, r)
	})
}

// gubernatorInProcess is the first daemon of a cluster asked by a function call. If it is alone it owns all keys, and
// shares them with nobody; of two it owns half of them, and passes the others on.
func gubernatorInProcess(b *testing.B, daemons int) goroutine {
	v1 := gubernatorCluster(b, daemons)[0].V1Server
	return gubernatorAsk(func(r *gubernator.GetRateLimitsReq) (*gubernator.GetRateLimitsResp, error) {
		return v1.GetRateLimits(ctx, r)
	})
}

func gubernatorAsk(ask func(*gubernator.GetRateLimitsReq) (*gubernator.GetRateLimitsResp, error)) goroutine {
	return func() decide {
		return func(key int) bool {
			r, err := ask(&gubernator.GetRateLimitsReq{Requests: []*gubernator.RateLimitReq{{
				Name: "bench", UniqueKey: names()[key], Hits: 1, Limit: plenty * 60, Duration: gubernator.Minute,
			}}})
			if err != nil || len(r.Responses) != 1 {
				return false
			}
			one := r.Responses[0]
			return one.Error == "" && one.Status == gubernator.Status_UNDER_LIMIT
		}
	}
}
