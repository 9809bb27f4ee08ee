// The etcd of the version that Kubernetes' own module names. A distribution's may be too old to tell
// an API server how far it is, without which no list that is streamed has an end.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
