//! Numbers of `linux/netfilter/nf_tables.h`.

use crate::netlink::{Encoder, Flags};
use model::names::NFT_TABLE;

/// `NFPROTO_INET`.
pub(crate) const FAMILY_INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
pub(super) const BATCH_BEGIN: u16 = 0x10;
pub(super) const BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`.
pub(super) const NEW_TABLE: u16 = message(0);
pub(super) const GET_TABLE: u16 = message(1);
pub(super) const DELETE_TABLE: u16 = message(2);
pub(super) const NEW_CHAIN: u16 = message(3);
pub(super) const GET_CHAIN: u16 = message(4);
pub(super) const DELETE_CHAIN: u16 = message(5);
pub(super) const NEW_RULE: u16 = message(6);
pub(super) const GET_RULE: u16 = message(7);
pub(super) const DELETE_RULE: u16 = message(8);
pub(super) const NEW_SET: u16 = message(9);
pub(super) const GET_SET: u16 = message(10);
pub(super) const DELETE_SET: u16 = message(11);
pub(super) const NEW_ELEMENTS: u16 = message(12);
pub(super) const GET_ELEMENTS: u16 = message(13);
pub(super) const DELETE_ELEMENTS: u16 = message(14);
pub(super) const GET_GENERATION: u16 = message(16);
pub(super) const NEW_OBJECT: u16 = message(18);
pub(super) const GET_OBJECT: u16 = message(19);
pub(super) const DELETE_OBJECT: u16 = message(20);
pub(super) const GET_FLOWTABLE: u16 = message(23);

/// `NFT_TABLE_F_DORMANT`, `_OWNER`, `_PERSIST`.
pub(super) const DORMANT: u32 = 1;
pub(super) const OWNER: u32 = 2;
pub(super) const PERSIST: u32 = 4;
pub(super) const OWNER_PERSIST: u32 = OWNER | PERSIST;

/// Attributes of tables.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
pub(super) const TABLE_OWNER: u16 = 7;
/// Attribute of everything in a table: the table's name.
pub(super) const IN_TABLE: u16 = 1;

/// Attributes of chains.
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const CHAIN_FLAGS: u16 = 10;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;

/// Attributes of rules.
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;

/// Attributes of sets.
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LENGTH: u16 = 5;
pub(super) const SET_DATA_TYPE: u16 = 6;
pub(super) const SET_DESCRIPTION: u16 = 9;
pub(super) const SET_ID: u16 = 10;
pub(super) const SET_USERDATA: u16 = 13;
/// Number of elements; only newer kernels tell it.
pub(super) const SET_COUNT: u16 = 20;
pub(super) const DESCRIPTION_SIZE: u16 = 1;
pub(super) const DESCRIPTION_CONCAT: u16 = 2;
/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_CONCAT`.
pub(super) const SET_INTERVAL: u32 = 4;
pub(super) const SET_MAP: u32 = 8;
pub(super) const SET_CONCAT: u32 = 0x80;
/// `NFT_DATA_VERDICT`.
pub(super) const DATA_VERDICT: u32 = 0xffff_ff00;

/// Attributes of objects.
pub(super) const OBJECT_NAME: u16 = 2;
pub(super) const OBJECT_TYPE: u16 = 3;
pub(super) const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`, and its attributes.
pub(super) const OBJECT_COUNTER: u32 = 1;
pub(super) const COUNTER_BYTES: u16 = 1;
pub(super) const COUNTER_PACKETS: u16 = 2;

/// Attributes of lists of elements, and of elements.
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS_LIST: u16 = 3;
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_DATA: u16 = 2;
pub(super) const ELEMENT_FLAGS: u16 = 3;
pub(super) const ELEMENT_KEY_END: u16 = 10;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;

/// Attributes of data.
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_IS_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;

const fn message(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// `struct nfgenmsg` of messages about inet tables.
pub(super) const INET: [u8; 4] = [FAMILY_INET, 0, 0, 0];
/// `struct nfgenmsg` of the messages around a batch.
pub(super) const BATCH: [u8; 4] = [0, 0, 0, SUBSYSTEM as u8];

/// A request about our table; `body` adds attributes after the table's name.
pub(super) fn request(
    encoder: &mut Encoder,
    kind: u16,
    flags: Flags,
    body: impl FnOnce(&mut Encoder),
) -> u32 {
    request_of(NFT_TABLE, encoder, kind, flags, body)
}

/// Likewise about this table.
pub(super) fn request_of(
    table: &str,
    encoder: &mut Encoder,
    kind: u16,
    flags: Flags,
    body: impl FnOnce(&mut Encoder),
) -> u32 {
    encoder.message(kind, flags, &INET, |encoder| {
        encoder.string(IN_TABLE, table);
        body(encoder);
    })
}
