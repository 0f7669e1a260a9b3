use super::*;

fn ids(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// 2 and 3 stay, 1 becomes a learner, 4 votes from now on, 9 listens.
fn joint() -> Configuration {
    let (voters, outgoing, learners) = (ids(&[4, 3, 2]), ids(&[1, 2, 3]), ids(&[9, 1]));
    Configuration::new(Phase::Held, voters, outgoing, learners, Index(7)).expect("it is sound")
}

fn words(node: NodeId) -> Words<'static> {
    let addresses = match node.0 {
        3 => Addresses { peer: b"three:7", client: b"three:77" },
        4 => Addresses { peer: b"", client: b"four" },
        _ => Addresses::default(),
    };
    Words { incarnation: Incarnation(if node.0 == 9 { 0x0102 } else { 0 }), addresses }
}

/// The bytes are the format's, for ever.
#[test]
fn golden() {
    let bytes = joint().encode(words).expect("short addresses");
    let mut expected = vec![1, 0, 3, 0, 5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0; 8]);
    expected.extend([2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0; 8]);
    expected.extend([3, 0, 0, 0, 3, 0, 0, 0, 7, 0, 8, 0, 0, 0, 0, 0]);
    expected.extend([0; 8]);
    expected.extend(b"three:7three:77\0");
    expected.extend([4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
    expected.extend([0; 8]);
    expected.extend(b"four\0\0\0\0");
    expected.extend([9, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes, expected);
}

/// What is encoded decodes to the same: members, roles and addresses.
#[test]
fn round_trip() {
    let stable = Configuration::first(ids(&[1]), Vec::new()).expect("it is sound");
    for configuration in [joint(), stable] {
        let bytes = configuration.encode(words).expect("short addresses");
        assert!(bytes.len() <= CONFIGURATION_BYTES_MAX);
        let (decoded, members) = Configuration::decode(&bytes).expect("just encoded");
        assert_eq!(decoded, configuration);
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        assert_eq!(nodes, configuration.members().collect::<Vec<_>>());
        assert!(members.iter().all(|member| member.words == words(member.node)));
    }
}

/// Each member once, in order, whatever its roles.
#[test]
fn members_are_merged() {
    let joint = joint();
    assert_eq!(joint.all_voters().collect::<Vec<_>>(), ids(&[1, 2, 3, 4]));
    assert_eq!(joint.members().collect::<Vec<_>>(), ids(&[1, 2, 3, 4, 9]));
    assert_eq!((joint.voters(), joint.learners()), (&ids(&[2, 3, 4])[..], &ids(&[1, 9])[..]));
    assert!(joint.is_voter(NodeId(1)) && joint.is_voter(NodeId(4)) && !joint.is_voter(NodeId(9)));
    assert!(joint.is_member(NodeId(9)) && !joint.is_member(NodeId(5)));
    assert_eq!(Configuration::none().members().count(), 0);
}

/// No cut and no change of a single bit panics, or is taken for a configuration that no group can
/// have; the version is judged before what follows it.
#[test]
fn damage_is_refused() {
    let whole = joint().encode(words).expect("short addresses");
    for length in 0..whole.len() {
        let error = Configuration::decode(&whole[..length]).expect_err("cut short");
        assert!(matches!(error, ConfigurationError::Short { have, need } if have < need));
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let decoded = Configuration::decode(&bytes);
        if bit < 16 {
            assert!(matches!(decoded, Err(ConfigurationError::Version(_))));
        } else if let Ok((configuration, _)) = decoded {
            assert!(!configuration.voters().is_empty() && configuration.is_joint());
        }
    }
    let mut longer = whole;
    longer.extend([0; 8]);
    let malformed = ConfigurationError::Malformed("bytes behind its end");
    assert_eq!(Configuration::decode(&longer), Err(malformed));
}

/// Each rule broken once.
#[test]
fn what_no_group_can_have_is_refused() {
    use ConfigurationError::*;
    let new = |phase, voters: &[u32], outgoing: &[u32], learners: &[u32]| {
        let (voters, outgoing, learners) = (ids(voters), ids(outgoing), ids(learners));
        Configuration::new(phase, voters, outgoing, learners, Index::ZERO).map(|_| ())
    };
    let many = |count: usize| (100..100 + count as u32).collect::<Vec<_>>();
    let stable = |voters: &[u32], learners: &[u32]| new(Phase::Stable, voters, &[], learners);
    assert_eq!(stable(&[], &[2]), Err(NoVoters));
    assert_eq!(stable(&[0, 1], &[]), Err(NodeZero));
    assert_eq!(stable(&[1, 2, 1], &[]), Err(Repeated(NodeId(1))));
    assert_eq!(stable(&[1], &[3, 3]), Err(Repeated(NodeId(3))));
    assert_eq!(stable(&[1, 2], &[3, 2]), Err(VoterAndLearner(NodeId(2))));
    assert_eq!(stable(&many(NODES_MAX), &[]), Ok(()));
    assert_eq!(stable(&many(NODES_MAX + 1), &[]), Err(TooManyVoters(NODES_MAX + 1)));
    assert_eq!(stable(&[1], &many(LEARNERS_MAX)), Ok(()));
    assert_eq!(stable(&[1], &many(LEARNERS_MAX + 1)), Err(TooManyLearners(LEARNERS_MAX + 1)));
    let joint = |voters: &[u32], outgoing: &[u32], learners: &[u32]| {
        new(Phase::Joint, voters, outgoing, learners)
    };
    assert_eq!(joint(&[1], &[1], &many(LEARNERS_MAX)), Ok(()));
    let error = joint(&[2], &[1], &many(LEARNERS_MAX)).expect_err("no room to abort");
    assert_eq!(error, TooManyLearners(LEARNERS_MAX + 1));
    assert_eq!(joint(&[1, 2], &[], &[]), Err(Outgoing { phase: Phase::Joint, count: 0 }));
    let error = new(Phase::Aborted, &[1], &[2], &[]).expect_err("it isn't joint");
    assert_eq!(error, Outgoing { phase: Phase::Aborted, count: 1 });
    let long = [b'a'; ADDRESS_BYTES_MAX + 1];
    let configuration = Configuration::first(ids(&[5]), Vec::new()).expect("it is sound");
    let addresses = Addresses { peer: b"", client: &long };
    let error = configuration.encode(|_| Words { addresses, ..Words::default() });
    let (node, bytes) = (NodeId(5), ADDRESS_BYTES_MAX + 1);
    assert_eq!(error, Err(AddressTooLong { node, bytes }));
}

/// The largest configuration is as long as is said.
#[test]
fn the_largest_fits() {
    let nodes = |from: usize, count: usize| (from as u32..).take(count).map(NodeId).collect();
    let voters: Vec<NodeId> = nodes(1, NODES_MAX);
    let outgoing = nodes(1000, NODES_MAX);
    let learners = nodes(2000, LEARNERS_MAX - NODES_MAX);
    let largest = Configuration::new(Phase::Joint, voters, outgoing, learners, Index(1));
    let address = [b'a'; ADDRESS_BYTES_MAX];
    let addresses = Addresses { peer: &address, client: &address };
    let bytes = largest
        .expect("it is sound")
        .encode(|_| Words { addresses, ..Words::default() })
        .expect("as long as may be");
    assert!(bytes.len() <= CONFIGURATION_BYTES_MAX);
    assert!(Configuration::decode(&bytes).is_ok());
}
