// Scheduler sends each prompt to the pod that holds most of it, and tells kvatlas what became of it.
//
// Prompts are lines of token ids on standard input. Each is scored on one long stream within a few
// milliseconds; without an answer in time the pods take turns. The request then goes to the pod's
// /v1/completions, as to vLLM or SGLang, and what the engine says about its cache is reported.
//
// The stubs are generated with buf, protoc-gen-go and protoc-gen-go-grpc:
//
//	buf generate ../.. --template buf.gen.yaml && go mod tidy
//	seq -s' ' 1 64 | go run . -model my-model -pods 10.0.0.1:8000,10.0.0.2:8000
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	kvatlas "github.com/kvatlas/kvatlas/go/kvatlas/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type scheduler struct {
	stream *Stream
	model  string
	pods   []string
	budget time.Duration // of a score
	turn   atomic.Uint32
}

// choose returns the pod to use, and the handle of the answer, if there is one.
func (s *scheduler) choose(ctx context.Context, tokenIDs []uint32) (pod string, handle []byte) {
	ctx, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	request := &kvatlas.ScoreRequest{
		Model:      s.model,
		Prompt:     &kvatlas.Prompt{Input: &kvatlas.Prompt_PackedTokenIds{PackedTokenIds: pack(tokenIDs)}},
		Pods:       s.pods,
		WantHandle: true,
	}
	answer, err := s.stream.Ask(ctx, &kvatlas.ScoreStreamRequest{
		Action: &kvatlas.ScoreStreamRequest_Score{Score: request},
	})
	if err != nil {
		log.Printf("scheduled without scores: %v", err)
		return s.nextPod(), nil
	}
	scores := answer.GetResponse()
	if len(scores.GetBest()) == 0 { // no pod holds anything
		return s.nextPod(), scores.GetHandle()
	}
	return scores.Pods[scores.Best[0]].Pod, scores.Handle
}

// record says where the request went, so that the next one like it can be sent there too.
func (s *scheduler) record(ctx context.Context, handle []byte, pod string) {
	_, err := s.stream.Ask(ctx, &kvatlas.ScoreStreamRequest{
		Action: &kvatlas.ScoreStreamRequest_RecordRouting{
			RecordRouting: &kvatlas.RecordRoutingRequest{Handle: handle, Pod: pod},
		},
	})
	if err != nil {
		log.Printf("not recorded: %v", err)
	}
}

// report says how many tokens of the prompt the engine found in its cache.
func (s *scheduler) report(ctx context.Context, handle []byte, cached uint32) {
	answer, err := s.stream.Ask(ctx, &kvatlas.ScoreStreamRequest{
		Action: &kvatlas.ScoreStreamRequest_ReportOutcome{
			ReportOutcome: &kvatlas.ReportOutcomeRequest{Handle: handle, CachedTokens: cached},
		},
	})
	if err != nil {
		log.Printf("not reported: %v", err)
		return
	}
	log.Printf("cached: %d tokens; promised: %d", cached, answer.GetOutcome().GetPromisedTokens())
}

// serve sends one prompt to a pod.
func (s *scheduler) serve(ctx context.Context, tokenIDs []uint32) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pod, handle := s.choose(ctx, tokenIDs)
	recorded := make(chan struct{})
	go func() { // the request need not wait for it
		defer close(recorded)
		if handle != nil {
			s.record(ctx, handle, pod)
		}
	}()
	cached, err := complete(ctx, pod, s.model, tokenIDs)
	if err != nil {
		return err
	}
	<-recorded
	fmt.Println(pod)
	if handle != nil && cached != nil {
		s.report(ctx, handle, *cached)
	}
	return nil
}

func (s *scheduler) nextPod() string {
	return s.pods[int(s.turn.Add(1)-1)%len(s.pods)]
}

// complete sends a prompt to a pod and returns the number of cached tokens, if the engine tells.
func complete(ctx context.Context, pod, model string, tokenIDs []uint32) (cached *uint32, err error) {
	body, err := json.Marshal(map[string]any{"model": model, "prompt": tokenIDs, "max_tokens": 1})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+pod+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Usage struct {
			Details struct {
				CachedTokens *uint32 `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		} `json:"usage"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", pod, response.Status, err)
	}
	return answer.Usage.Details.CachedTokens, nil
}

func pack(tokenIDs []uint32) []byte {
	packed := make([]byte, 0, 4*len(tokenIDs))
	for _, id := range tokenIDs {
		packed = binary.LittleEndian.AppendUint32(packed, id)
	}
	return packed
}

func parse(line string) ([]uint32, error) {
	var ids []uint32
	for _, word := range strings.Fields(line) {
		id, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}

func main() {
	server := flag.String("server", "localhost:50051", "address of kvatlas")
	model := flag.String("model", "", "name of the model")
	pods := flag.String("pods", "", "ip:port of each pod, with commas")
	budget := flag.Duration("score", 5*time.Millisecond, "what a score may take")
	flag.Parse()
	if *model == "" || *pods == "" {
		log.Fatal("give -model and -pods")
	}
	connection, err := grpc.NewClient(*server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &scheduler{
		stream: NewStream(ctx, kvatlas.NewScoringServiceClient(connection)),
		model:  *model,
		pods:   strings.Split(*pods, ","),
		budget: *budget,
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20) // a long prompt
	for lines.Scan() {
		ids, err := parse(lines.Text())
		if err == nil && len(ids) > 0 {
			err = s.serve(ctx, ids)
		}
		if err != nil {
			log.Print(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}
