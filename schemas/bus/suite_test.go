package bus_test

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
)

// suite is what a Bus promises whatever servers it is over.
var suite = []struct {
	name string
	run  func(*testing.T, *bustest.Env)
}{
	{"RecordsComeBackAsPublishedAndInOrder", testRecordsComeBackAsPublishedAndInOrder},
	{"ClassesAndShardsKeepProcessesApart", testClassesAndShardsKeepProcessesApart},
	{"WaitingRecordsShareFramesAndReadersAgree", testWaitingRecordsShareFramesAndReadersAgree},
	{"OversizeBodyTravelsByClaim", testOversizeBodyTravelsByClaim},
	{"OversizeBodyWithoutStoreIsRefused", testOversizeBodyWithoutStoreIsRefused},
	{"FullStreamRefusesAndServesAgainAfterTrim", testFullStreamRefusesAndServesAgainAfterTrim},
	{"PublishEndsWithItsContextAndWithClose", testPublishEndsWithItsContextAndWithClose},
	{"HeadSeesWhatWasAcknowledgedBefore", testHeadSeesWhatWasAcknowledgedBefore},
	{"DeadLettersAreKeptOnceAndCountedByKind", testDeadLettersAreKeptOnceAndCountedByKind},
	{"FlushReachesTheOwnerAndComesBack", testFlushReachesTheOwnerAndComesBack},
	{"FlushHandlersAreBoundedAndEndWithStop", testFlushHandlersAreBoundedAndEndWithStop},
	{"FlushOutlivesItsOwner", testFlushOutlivesItsOwner},
	{"FlushIsHandedOver", testFlushIsHandedOver},
	{"FlushAskedAgainIsHandledOnce", testFlushAskedAgainIsHandledOnce},
	{"ViewIsAskedForAndAnswered", testViewIsAskedForAndAnswered},
	{"ViewThatNobodyBuilds", testViewThatNobodyBuilds},
	{"WorkEndsWhenItsAskerIsGone", testWorkEndsWhenItsAskerIsGone},
	{"ViewIsAskedForAgainWhenAProcessStops", testViewIsAskedForAgainWhenAProcessStops},
	{"ViewIsAskedForAgainWhenAProcessDies", testViewIsAskedForAgainWhenAProcessDies},
	{"RequestsForViewsAreBounded", testRequestsForViewsAreBounded},
	{"ReaderTakesPacksWhereTheBusIsTrimmed", testReaderTakesPacksWhereTheBusIsTrimmed},
	{"HoleIsReportedNotSkipped", testHoleIsReportedNotSkipped},
	{"ReaderWaitsAndEndsWithItsContext", testReaderWaitsAndEndsWithItsContext},
	{"UnknownGenerationIsRefused", testUnknownGenerationIsRefused},
	{"ForgottenReaderRecovers", testForgottenReaderRecovers},
	{"LostCatalogKeepsTheStreamsFrames", testLostCatalogKeepsTheStreamsFrames},
	{"ProcessesThatOpenTogetherAgree", testProcessesThatOpenTogetherAgree},
	{"OtherShardCountIsRefused", testOtherShardCountIsRefused},
	{"ShardCountOfAHalfMadeBus", testShardCountOfAHalfMadeBus},
	{"BusOfAnotherCatalogIsRefused", testBusOfAnotherCatalogIsRefused},
}

func TestBusOverTheEmbeddedServer(t *testing.T) {
	for _, test := range suite {
		t.Run(test.name, func(t *testing.T) { test.run(t, bustest.NewEnv(t)) })
	}
}

func TestBusOverACluster(t *testing.T) {
	t.Parallel()
	c := bustest.StartCluster(t, 3)
	for _, test := range suite {
		t.Run(test.name, func(t *testing.T) { test.run(t, c.NewEnv(t)) })
	}
}
