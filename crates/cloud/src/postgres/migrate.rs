//! What the database's administrator does once: the schema, and a role and a first row for the
//! tenant.

use super::database::{self, DatabaseError, DatabaseSettings, MIGRATIONS};
use palmgate_protocol::Name;
use postgres::{Client, Transaction};
use std::path::Path;

/// Brings the schema up to this program's version, and founds the tenant in it. Repeating it
/// changes nothing.
pub(crate) fn migrate(
    admin: &DatabaseSettings,
    tenant: &Name,
    region: &Name,
    password: Option<&str>,
    state: &Path,
) -> Result<(), DatabaseError> {
    let (mut client, place) = database::administrator(admin, state)?;
    let failed = |error: postgres::Error| DatabaseError::Unreachable {
        place: place.clone(),
        source: database::words(&error).into(),
    };
    let found = database::version(&mut client).map_err(failed)?;
    if found > database::SCHEMA_VERSION {
        return Err(DatabaseError::New(found));
    }
    apply(&mut client, found).map_err(failed)?;
    admit_tenant(&mut client, tenant, region, password).map_err(failed)
}

fn apply(client: &mut Client, found: i32) -> Result<(), postgres::Error> {
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let mut transaction = client.transaction()?;
        if version == 1 {
            ensure_role(&mut transaction, "palmgate_tenant", "NOLOGIN")?;
            transaction.batch_execute(
                "CREATE SCHEMA IF NOT EXISTS palmgate; GRANT USAGE ON SCHEMA palmgate TO \
                 palmgate_tenant",
            )?;
        }
        transaction.batch_execute("SET LOCAL search_path = palmgate")?;
        transaction.batch_execute(migration)?;
        transaction.execute("INSERT INTO schema_version VALUES ($1)", &[&version])?;
        transaction.commit()?;
        tracing::info!(version, "migrated");
    }
    Ok(())
}

/// The tenant's rows are written in its own role, since the policy binds the administrator too.
fn admit_tenant(
    client: &mut Client,
    tenant: &Name,
    region: &Name,
    password: Option<&str>,
) -> Result<(), postgres::Error> {
    let role = database::role(tenant);
    let mut transaction = client.transaction()?;
    ensure_role(&mut transaction, &role, "LOGIN")?;
    if let Some(password) = password {
        let quoted: String =
            transaction.query_one("SELECT quote_literal($1)", &[&password])?.get(0);
        transaction.batch_execute(&format!("ALTER ROLE \"{role}\" PASSWORD {quoted}"))?;
    }
    transaction.batch_execute(&format!(
        "GRANT palmgate_tenant TO \"{role}\"; GRANT \"{role}\" TO CURRENT_USER; \
         SET LOCAL search_path = palmgate; SET LOCAL ROLE \"{role}\""
    ))?;
    transaction.execute(
        "INSERT INTO tenant (tenant, region) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[&tenant.as_str(), &region.as_str()],
    )?;
    transaction.commit()
}

/// Role names are built from [`Name`]s: nothing in them needs quoting beyond the quotes.
fn ensure_role(
    transaction: &mut Transaction<'_>,
    role: &str,
    attributes: &str,
) -> Result<(), postgres::Error> {
    let known = transaction.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])?;
    if known.is_none() {
        transaction.batch_execute(&format!("CREATE ROLE \"{role}\" {attributes}"))?;
    }
    Ok(())
}
