//! UpdateFeatures (KIP-584, KIP-778) and UnregisterBroker.

use super::Context;
use super::errors::{refusal_code, submit_code};
use controller::command::{Direction, FeatureUpdate, Mode, UpdateFeatures};
use proto::errors::ErrorCode;
use proto::ids::NodeId;
use proto::messages::update_features_response::UpdatableFeatureResult;
use proto::messages::{
    UnregisterBrokerRequest, UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

/// Version from which on a request says how a level may move, and may be a trial.
const UPGRADE_TYPES: i16 = 1;
/// Version from which on there is one answer for all features: all move, or none does.
const ONE_ANSWER: i16 = 2;

/// Moves levels of features.
pub(super) async fn update(context: &Context<'_>, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let version = context.caller.version;
    let mut updates = Vec::with_capacity(request.feature_updates.len());
    for asked in request.feature_updates {
        let direction = match asked.upgrade_type {
            _ if version < UPGRADE_TYPES && asked.allow_downgrade => Direction::SafeDowngrade,
            _ if version < UPGRADE_TYPES => Direction::Upgrade,
            1 => Direction::Upgrade,
            2 => Direction::SafeDowngrade,
            3 => Direction::UnsafeDowngrade,
            other => return failed(ErrorCode::InvalidRequest, format!("{other} is no upgrade type")),
        };
        updates.push(FeatureUpdate { name: asked.feature, level: asked.max_version_level, direction });
    }
    let names: Vec<String> = updates.iter().map(|update| update.name.clone()).collect();
    let mode = if request.validate_only { Mode::Validate } else { Mode::Commit };
    let outcomes = match context.services.controller.update_features(UpdateFeatures { updates, mode }).await {
        Ok(outcomes) => outcomes,
        Err(error) => return failed(submit_code(&error), error.to_string()),
    };
    if version >= ONE_ANSWER {
        let refused = names.iter().zip(outcomes).find_map(|(name, outcome)| Some((name, outcome.err()?)));
        return match refused {
            None => UpdateFeaturesResponse::default(),
            Some((name, refusal)) => failed(refusal_code(&refusal), format!("{name}: {refusal}")),
        };
    }
    let result = |(feature, outcome): (String, Result<(), controller::Refusal>)| match outcome {
        Ok(()) => UpdatableFeatureResult { feature, ..Default::default() },
        Err(refusal) => UpdatableFeatureResult {
            feature,
            error_code: refusal_code(&refusal).code(),
            error_message: Some(refusal.to_string()),
        },
    };
    UpdateFeaturesResponse { results: names.into_iter().zip(outcomes).map(result).collect(), ..Default::default() }
}

fn failed(code: ErrorCode, why: String) -> UpdateFeaturesResponse {
    UpdateFeaturesResponse { error_code: code.code(), error_message: Some(why), ..Default::default() }
}

/// Takes a broker that will not come back out of the cluster.
pub(super) async fn unregister(context: &Context<'_>, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    match context.services.controller.unregister_broker(NodeId(request.broker_id)).await {
        Ok(()) => UnregisterBrokerResponse::default(),
        Err(error) => UnregisterBrokerResponse {
            error_code: submit_code(&error).code(),
            error_message: Some(error.to_string()),
            ..Default::default()
        },
    }
}
