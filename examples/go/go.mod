module example.com/scheduler

go 1.23

require (
	github.com/kvatlas/kvatlas/go v0.0.0
	google.golang.org/grpc v1.64.0
	google.golang.org/protobuf v1.36.5
)

// The stubs that `buf generate` writes.
replace github.com/kvatlas/kvatlas/go => ./kvatlas
