//! A request as a broker receives it: header, then the message that the header announces.
#![no_main]

mod shared;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto::{
    messages::{
        ApiKey, ApiVersionsRequest, FetchRequest, JoinGroupRequest, MetadataRequest, ProduceRequest,
        api_table::Request,
        codecs::CODECS,
        fetch_request::{FetchPartition, FetchTopic},
        join_group_request::JoinGroupRequestProtocol,
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    records::BatchBuilder,
    wire::{Decoder, Encoder, RequestHeader},
};

fuzz_target!(
    init: shared::plant(seeds()),
    |frame: &[u8]| {
        let mut d = Decoder::new(Bytes::copy_from_slice(frame));
        let Ok(header) = RequestHeader::decode(&mut d) else { return };
        let mut e = Encoder::new();
        header.encode(&mut e).expect("what was read can be written");
        let again = e.into_bytes().expect("it is short");
        assert_eq!(RequestHeader::decode(&mut Decoder::new(again)), Ok(header.clone()));

        let name = ApiKey::from_code(header.api_key).expect("the header was read").name();
        let codec = CODECS.iter().find(|c| c.name.strip_suffix("Request") == Some(name));
        let Some(codec) = codec else { return };
        // What it decodes to does not matter here: it must return, and take no more memory than it may.
        let _ = (codec.check)(&mut d, header.api_version);
    }
);

/// Requests that every client sends, in all their versions.
fn seeds() -> Vec<Vec<u8>> {
    let mut batch = BatchBuilder::new();
    batch.append(1_000, Some(b"key"), Some(&shared::filling(40)), &[]);
    let partition_data = vec![PartitionProduceData { index: 1, records: Some(batch.build()) }];
    let topic = TopicProduceData { name: "snow".to_owned(), partition_data, ..Default::default() };
    let produce = ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data: vec![topic], ..Default::default() };
    let partitions = vec![FetchPartition { partition: 1, partition_max_bytes: 1 << 20, ..Default::default() }];
    let topic = FetchTopic { topic: "snow".to_owned(), partitions, ..Default::default() };
    let fetch = FetchRequest { max_wait_ms: 500, max_bytes: 1 << 20, topics: vec![topic], ..Default::default() };
    let topic = MetadataRequestTopic { name: Some("snow".to_owned()), ..Default::default() };
    let metadata = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let protocol = JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"snow") };
    let join = JoinGroupRequest {
        group_id: "group".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol],
        ..Default::default()
    };
    let mut seeds = frames(&produce);
    seeds.extend(frames(&fetch));
    seeds.extend(frames(&metadata));
    seeds.extend(frames(&join));
    seeds.extend(frames(&ApiVersionsRequest::default()));
    seeds
}

/// The request in every version that can say it.
fn frames<R: Request>(request: &R) -> Vec<Vec<u8>> {
    let versions = R::KEY.versions();
    let frame = |version| {
        let mut e = Encoder::new();
        let client_id = Some("client".to_owned());
        let header = RequestHeader {
            api_key: R::KEY.code(),
            api_version: version,
            correlation_id: i32::from(version),
            client_id,
        };
        header.encode(&mut e).ok()?;
        request.encode_request(&mut e, version).ok()?;
        Some(e.into_bytes().ok()?.to_vec())
    };
    (versions.min..=versions.max).filter_map(frame).collect()
}
