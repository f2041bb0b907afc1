package deploy

import (
	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/gateway/nativehttp"
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/asyncspans"
	"github.com/micromegas-go/micromegas/materializers/images"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/materializers/logs"
	"github.com/micromegas-go/micromegas/materializers/measures"
	"github.com/micromegas-go/micromegas/materializers/netspans"
	"github.com/micromegas-go/micromegas/materializers/threadspans"
)

// builtinProtocols lists what the gateway speaks.
func builtinProtocols() []gateway.Protocol {
	return []gateway.Protocol{nativehttp.Protocol()}
}

// builtinViews lists the views that materializers build as data comes.
func builtinViews() []materializers.View {
	return []materializers.View{logs.View(), measures.View()}
}

// builtinJustInTime lists the views that materializers build when somebody asks.
func builtinJustInTime() []justintime.View {
	return []justintime.View{threadspans.View(), asyncspans.View(), images.View(), netspans.View()}
}
