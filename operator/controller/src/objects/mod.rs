//! The objects that the operator makes, from what is asked for. Nothing in here decides, or does I/O.

pub mod classes;
pub mod pods;
pub mod quantity;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

/// A reference to an owner whose deletion takes the object along. It does not block the owner's deletion, so no permission on the owner's
/// finalizers is needed.
pub fn owner<K: Resource<DynamicType = ()>>(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}
