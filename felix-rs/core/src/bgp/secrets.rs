//! References to Secrets -> passwords of TCP MD5 signatures.

use crate::objects::Objects;
use bgp_core::{Password, PasswordError};
use model::{Object, ObjectKey, Secret, SecretKeyRef};

/// Why a reference yields no password. No message holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SecretError {
    /// There is no such Secret.
    #[error("there is no {secret}, so there is no session")]
    NoSecret { secret: ObjectKey },
    /// The Secret has no such key.
    #[error("{secret} has no key {key}, so there is no session")]
    NoKey { secret: ObjectKey, key: String },
    /// The value is not text.
    #[error("{secret}: the value of key {key} is not UTF-8, so there is no session")]
    NotText { secret: ObjectKey, key: String },
    /// The value can't be a password.
    #[error("{secret}: key {key}: {source}, so there is no session")]
    NoPassword {
        secret: ObjectKey,
        key: String,
        source: PasswordError,
    },
}

/// The password that is referred to; none where the reference is optional and leads nowhere.
pub(super) fn password(
    reference: &SecretKeyRef,
    objects: &Objects,
) -> Result<Option<Password>, SecretError> {
    let secret = ObjectKey::namespaced(
        model::Kind::Secret,
        objects.secrets_namespace(),
        &reference.name,
    );
    let key = reference.key.clone();
    let found = match objects.get(&secret) {
        Some(Object::Secret(Secret { data, .. })) => data.get(&key).ok_or(SecretError::NoKey {
            secret: secret.clone(),
            key: key.clone(),
        }),
        _ => Err(SecretError::NoSecret {
            secret: secret.clone(),
        }),
    };
    let value = match found {
        Ok(value) => value,
        Err(_) if reference.optional => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(text) = std::str::from_utf8(value.expose()) else {
        return Err(SecretError::NotText { secret, key });
    };
    let password = Password::new(text).map_err(|source| SecretError::NoPassword {
        secret,
        key,
        source,
    })?;
    Ok(Some(password))
}
