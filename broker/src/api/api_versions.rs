//! ApiVersions (KIP-511, KIP-584): what this broker speaks.

use super::{Context, SPOKEN, advertised, spoken};
use proto::errors::ErrorCode;
use proto::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use proto::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use proto::wire::VersionRange;

/// Features a client may see, with the levels this binary understands.
const FEATURES: &[(&str, VersionRange)] = &[
    ("metadata.version", VersionRange::new(7, 27)),
    ("kraft.version", VersionRange::new(0, 1)),
    (proto::metadata::FEATURE, VersionRange::new(0, proto::metadata::NEWEST_LEVEL)),
];

/// Answers what is spoken, and the features the cluster has settled on.
pub(super) async fn handle(context: &Context<'_>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if context.caller.version >= 3
        && !(well_formed(&request.client_software_name) && well_formed(&request.client_software_version))
    {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() };
    }
    let image = context.services.controller.image();
    ApiVersionsResponse {
        api_keys: SPOKEN.iter().map(|(key, versions)| entry(*key, *versions)).collect(),
        supported_features: FEATURES
            .iter()
            .filter(|(_, levels)| context.caller.version >= 4 || levels.min > 0)
            .map(|(name, levels)| SupportedFeatureKey {
                name: (*name).to_owned(),
                min_version: levels.min,
                max_version: levels.max,
            })
            .collect(),
        finalized_features_epoch: i64::try_from(image.offset()).unwrap_or(i64::MAX),
        finalized_features: image
            .features()
            .map(|(name, level)| FinalizedFeatureKey {
                name: name.to_owned(),
                max_version_level: level,
                min_version_level: level,
            })
            .collect(),
        ..Default::default()
    }
}

/// What a client that is too new gets, in version 0.
pub(super) fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: spoken(ApiKey::ApiVersions)
            .map(|versions| entry(ApiKey::ApiVersions, versions))
            .into_iter()
            .collect(),
        ..Default::default()
    }
}

fn entry(key: ApiKey, versions: VersionRange) -> ApiVersion {
    let versions = advertised(key, versions);
    ApiVersion { api_key: key.code(), min_version: versions.min, max_version: versions.max }
}

/// Names of client software: letters, digits, `-` and `.`, not at either end (KIP-511).
fn well_formed(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    !text.is_empty()
        && text.chars().all(|c| plain(c) || c == '-' || c == '.')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_client_software_are_checked() {
        assert!(well_formed("apache-kafka-java") && well_formed("4.3.1"));
        assert!(!well_formed("") && !well_formed("-x") && !well_formed("a b"));
    }
}
