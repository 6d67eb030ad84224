package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	kvatlas "github.com/kvatlas/kvatlas/go/kvatlas/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	mostInFlight = 64 // the service reads no more than its limits.stream_requests
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// Stream asks kvatlas over one long ScoreStream. Any number of goroutines may use it. When the
// service drains or the connection breaks, it opens another one and repeats what was not answered;
// each request waits no longer than its context.
type Stream struct {
	client kvatlas.ScoringServiceClient
	room   chan struct{} // holds one for each request in flight
	queued chan struct{} // holds one if queue is not empty

	mu       sync.Mutex
	lastID   uint64
	inFlight map[uint64]pending
	queue    []*kvatlas.ScoreStreamRequest // in flight, and to be sent on the present stream
}

type pending struct {
	request *kvatlas.ScoreStreamRequest
	answer  chan *kvatlas.ScoreStreamResponse // holds one
}

// NewStream opens a stream, which ends with ctx.
func NewStream(ctx context.Context, client kvatlas.ScoringServiceClient) *Stream {
	s := &Stream{
		client:   client,
		room:     make(chan struct{}, mostInFlight),
		queued:   make(chan struct{}, 1),
		inFlight: map[uint64]pending{},
	}
	go s.run(ctx)
	return s
}

// Ask sends a request, which has an action, and waits for its answer until ctx ends. An error in
// the answer is returned as a status error.
func (s *Stream) Ask(ctx context.Context, request *kvatlas.ScoreStreamRequest) (*kvatlas.ScoreStreamResponse, error) {
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if deadline, ok := ctx.Deadline(); ok {
		request.TimeoutMs = uint32(max(1, time.Until(deadline).Milliseconds()))
	}
	answers := s.begin(request)
	defer s.forget(request.Id)
	select {
	case answer := <-answers:
		if e := answer.GetError(); e != nil {
			return nil, status.Error(codes.Code(e.Code), fmt.Sprintf("%s: %s", e.Reason, e.Message))
		}
		return answer, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (s *Stream) begin(request *kvatlas.ScoreStreamRequest) <-chan *kvatlas.ScoreStreamResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	request.Id = s.lastID
	p := pending{request, make(chan *kvatlas.ScoreStreamResponse, 1)}
	s.inFlight[request.Id] = p
	s.enqueue(request)
	return p.answer
}

func (s *Stream) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inFlight, id)
}

// enqueue needs the lock.
func (s *Stream) enqueue(requests ...*kvatlas.ScoreStreamRequest) {
	s.queue = append(s.queue, requests...)
	select {
	case s.queued <- struct{}{}:
	default:
	}
}

// run holds one stream after the other.
func (s *Stream) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		answered, err := s.converse(ctx)
		if answered {
			pause = firstPause
		}
		if ctx.Err() == nil {
			log.Printf("kvatlas: the stream is lost, the next one in %v: %v", pause, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, longestPause)
	}
}

// converse sends and receives on one stream until it ends. It tells whether anything was answered.
func (s *Stream) converse(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.client.ScoreStream(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	s.repeatUnanswered()
	var writing sync.WaitGroup
	writing.Add(1)
	go func() {
		defer writing.Done()
		s.write(ctx, stream)
	}()
	defer writing.Wait()
	defer cancel()
	for {
		answer, err := stream.Recv()
		if err != nil {
			return answered, err
		}
		answered = true
		s.mu.Lock()
		if p, ok := s.inFlight[answer.Id]; ok { // otherwise nobody waits any more
			delete(s.inFlight, answer.Id)
			p.answer <- answer
		}
		s.mu.Unlock()
	}
}

func (s *Stream) repeatUnanswered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = nil
	for _, p := range s.inFlight {
		s.enqueue(p.request)
	}
	slices.SortFunc(s.queue, func(a, b *kvatlas.ScoreStreamRequest) int { return cmp.Compare(a.Id, b.Id) })
}

func (s *Stream) write(ctx context.Context, stream kvatlas.ScoringService_ScoreStreamClient) {
	for {
		select {
		case <-s.queued:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		requests := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, request := range requests {
			if stream.Send(request) != nil {
				return // Recv says why
			}
		}
	}
}
