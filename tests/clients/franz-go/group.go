package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A group keeps what its members were delivered and are assigned.
type group struct {
	topic, id string
	mutex     sync.Mutex
	delivered []int
	failure   error
	members   []*member
}

// A member takes records and commits them before it polls again; partitions are not taken from it in between.
type member struct {
	client     *kgo.Client
	cancel     context.CancelFunc
	done       chan struct{}
	assigned   map[int32]bool
	rebalances int
}

func newGroup(what string) *group {
	return &group{topic: create(name(what), 6, nil), id: name(what)}
}

func (g *group) join(options ...kgo.Opt) *member {
	m := &member{done: make(chan struct{}), assigned: map[int32]bool{}}
	change := func(holds bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			g.mutex.Lock()
			defer g.mutex.Unlock()
			if holds {
				m.rebalances++
			}
			for _, partition := range partitions[g.topic] {
				if holds {
					m.assigned[partition] = true
				} else {
					delete(m.assigned, partition)
				}
			}
		}
	}
	m.client = client(append([]kgo.Opt{
		kgo.ConsumerGroup(g.id), kgo.ConsumeTopics(g.topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
	}, options...)...)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	g.members = append(g.members, m)
	go g.run(ctx, m)
	return m
}

func (g *group) run(ctx context.Context, m *member) {
	defer close(m.done)
	for ctx.Err() == nil {
		records := m.client.PollRecords(ctx, 50).Records()
		if len(records) > 0 {
			err := m.client.CommitRecords(context.Background(), records...)
			g.mutex.Lock()
			if err != nil {
				g.failure = err
			}
			for _, record := range records {
				value, _ := strconv.Atoi(string(record.Value))
				g.delivered = append(g.delivered, value)
			}
			g.mutex.Unlock()
		}
		m.client.AllowRebalance()
	}
	m.client.CloseAllowingRebalance()
}

func (g *group) leave(m *member) {
	m.cancel()
	select {
	case <-m.done:
	case <-time.After(limit):
		panic("a member does not leave")
	}
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
}

// Waits until the assignments cover all partitions, none twice, and no member is idle.
func (g *group) awaitCovered() {
	until(fmt.Sprintf("%d members share the partitions", len(g.members)), func() bool {
		g.mutex.Lock()
		defer g.mutex.Unlock()
		succeed(g.failure)
		count, all := 0, map[int32]bool{}
		for _, m := range g.members {
			if len(m.assigned) == 0 {
				return false
			}
			count += len(m.assigned)
			for partition := range m.assigned {
				all[partition] = true
			}
		}
		return count == 6 && len(all) == 6
	})
}

func joinsAndLeaves(balancer kgo.GroupBalancer) {
	const count = 6000
	g := newGroup("group")
	written := make(chan error, 1)
	go func() {
		producer := client()
		defer producer.Close()
		for i := range count {
			producer.Produce(context.Background(), &kgo.Record{Topic: g.topic, Partition: int32(i % 6), Value: []byte(strconv.Itoa(i))}, nil)
			if i%20 == 19 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		written <- producer.Flush(context.Background())
	}()
	for range 3 {
		g.join(kgo.Balancers(balancer))
		g.awaitCovered()
	}
	g.leave(g.members[1])
	g.awaitCovered()
	g.join(kgo.Balancers(balancer))
	g.awaitCovered()
	succeed(<-written)
	until("all records are delivered", func() bool {
		g.mutex.Lock()
		defer g.mutex.Unlock()
		succeed(g.failure)
		return len(g.delivered) >= count
	})
	for len(g.members) > 0 {
		g.leave(g.members[0])
	}
	slices.Sort(g.delivered)
	for i, value := range g.delivered {
		equal(value, i, "each record is delivered once")
	}
}

func groupOfThree() {
	joinsAndLeaves(kgo.RangeBalancer())
}

func cooperativeGroup() {
	joinsAndLeaves(kgo.CooperativeStickyBalancer())
}

func staticMembers() {
	g := newGroup("static")
	instance := func(i int) []kgo.Opt {
		// A leader that restarts computes the plan anew and, where it differs, begins a rebalance: this one's plan depends on
		// the instances only, not on what they held.
		return []kgo.Opt{kgo.InstanceID(fmt.Sprintf("instance-%d", i)), kgo.Balancers(kgo.RangeBalancer())}
	}
	first, second := g.join(instance(0)...), g.join(instance(1)...)
	g.awaitCovered()
	g.mutex.Lock()
	before, rebalances := len(first.assigned), second.rebalances
	g.mutex.Unlock()
	g.leave(first)
	g.join(instance(0)...)
	g.awaitCovered()
	equal([]int{len(g.members[1].assigned), second.rebalances}, []int{before, rebalances}, "the same partitions, no rebalance")
	for len(g.members) > 0 {
		g.leave(g.members[0])
	}
	found, err := admin.DescribeGroups(timed(), g.id)
	succeed(err)
	equal(len(found[g.id].Members), 2, "static members stay when they are away")
}
