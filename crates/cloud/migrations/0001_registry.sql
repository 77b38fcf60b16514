-- One tenant's rows are a tenant's only: every primary key begins with the tenant, and the role of
-- a tenant sees no other tenant's rows. No sequences, triggers or advisory locks: counters are rows
-- of the tenant, the partition or the store that they count for, so that a distributed engine keeps
-- each with what it counts. What is about people is sealed before it comes here; ids are keyed
-- hashes.

-- Kept together with nothing else: one row a tenant.
CREATE TABLE tenant (
    tenant text PRIMARY KEY,
    region text NOT NULL,
    tombstone_revision bigint NOT NULL DEFAULT 0
);

-- A part of a tenant's people that is searched as one; its stores' people are in it.
CREATE TABLE partition (
    tenant text NOT NULL,
    partition text NOT NULL,
    region text NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    operator_members bigint NOT NULL DEFAULT 0,
    split_members bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, partition)
);

-- The keys that people's keys are sealed under, themselves sealed under a root key that is no row.
CREATE TABLE key_table (
    tenant text NOT NULL,
    partition text NOT NULL,
    generation bigint NOT NULL,
    version bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, partition)
);
ALTER TABLE key_table ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE TABLE key_group (
    tenant text NOT NULL,
    partition text NOT NULL,
    key_group integer NOT NULL,
    members integer NOT NULL,
    dirty boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, partition, key_group)
);
CREATE INDEX key_group_room ON key_group (tenant, partition, members);
CREATE INDEX key_group_dirty ON key_group (tenant, partition) WHERE dirty;

CREATE TABLE person_key (
    tenant text NOT NULL,
    partition text NOT NULL,
    member_hash bytea NOT NULL,
    key_group integer NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, partition, member_hash)
);
CREATE INDEX person_key_group ON person_key (tenant, partition, key_group);

CREATE TABLE member (
    tenant text NOT NULL,
    partition text NOT NULL,
    member_hash bytea NOT NULL,
    due_at bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, partition, member_hash)
);
CREATE INDEX member_due ON member (tenant, due_at);

CREATE TABLE record (
    tenant text NOT NULL,
    partition text NOT NULL,
    member_hash bytea NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, partition, member_hash)
);
-- Ciphertext does not shrink.
ALTER TABLE record ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- The embeddings alone, for building a search index without reading whole records.
CREATE TABLE embedding (
    tenant text NOT NULL,
    partition text NOT NULL,
    member_hash bytea NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, partition, member_hash)
);
ALTER TABLE embedding ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- In which partition a member or a claim is.
CREATE TABLE place (
    tenant text NOT NULL,
    id_hash bytea NOT NULL,
    partition text NOT NULL,
    member_hash bytea NOT NULL,
    PRIMARY KEY (tenant, id_hash)
);

-- What a search index has to read again, in order of commit.
CREATE TABLE change (
    tenant text NOT NULL,
    partition text NOT NULL,
    revision bigint NOT NULL,
    member_hash bytea NOT NULL,
    changed_at bigint NOT NULL,
    PRIMARY KEY (tenant, partition, revision)
);
CREATE INDEX change_age ON change (tenant, changed_at);

CREATE TABLE store (
    tenant text NOT NULL,
    store text NOT NULL,
    partition text NOT NULL,
    certificates text[] NOT NULL,
    resets integer NOT NULL DEFAULT 0,
    seal_key bytea,
    verify_key bytea,
    keys_resets integer NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    last_version bigint NOT NULL DEFAULT 0,
    last_hash bytea NOT NULL,
    up_to bigint,
    lease_until bigint,
    PRIMARY KEY (tenant, store)
);

-- Whom a store's shard has. The handle means nothing beyond its store.
CREATE TABLE holding (
    tenant text NOT NULL,
    store text NOT NULL,
    handle bytea NOT NULL,
    since bigint NOT NULL,
    visit_until bigint,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, store, handle)
);
CREATE INDEX holding_since ON holding (tenant, store, since);
CREATE INDEX holding_visit ON holding (tenant, visit_until) WHERE visit_until IS NOT NULL;

-- Who must leave a store and is not confirmed to have left.
CREATE TABLE removal (
    tenant text NOT NULL,
    store text NOT NULL,
    revision bigint NOT NULL,
    tombstone bytea NOT NULL,
    asked_at bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, store, revision)
);
CREATE INDEX removal_tombstone ON removal (tenant, tombstone);

CREATE TABLE tombstone (
    tenant text NOT NULL,
    hash bytea NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant, hash)
);
CREATE INDEX tombstone_revision ON tombstone (tenant, revision);

CREATE TABLE erasure (
    tenant text NOT NULL,
    commitment bytea NOT NULL,
    partition text,
    generation bigint,
    erased_at bigint,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, commitment)
);
CREATE INDEX erasure_unfinished ON erasure (tenant, partition) WHERE erased_at IS NULL;

-- The checkpoint of a store's ledger that was cosigned last.
CREATE TABLE witnessed (
    tenant text NOT NULL,
    origin text NOT NULL,
    checkpoint text NOT NULL,
    PRIMARY KEY (tenant, origin)
);

-- Which matcher searches which partition: the operator's plan, the same for every process.
CREATE TABLE matcher (
    tenant text NOT NULL,
    matcher text NOT NULL,
    partition text NOT NULL,
    PRIMARY KEY (tenant, matcher, partition)
);

CREATE TABLE schema_version (version integer PRIMARY KEY);

-- A tenant's role is called palmgate_TENANT and is a member of palmgate_tenant. The owner is bound
-- by the same policy; only a superuser sees all tenants.
DO $$
DECLARE each text;
BEGIN
    FOREACH each IN ARRAY ARRAY['tenant', 'partition', 'key_table', 'key_group', 'person_key',
        'member', 'record', 'embedding', 'place', 'change', 'store', 'holding', 'removal',
        'tombstone', 'erasure', 'witnessed', 'matcher']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', each);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', each);
        EXECUTE format(
            'CREATE POLICY tenant_only ON %I USING (tenant = substr(current_user::text, 10))', each);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO palmgate_tenant', each);
    END LOOP;
END $$;
GRANT SELECT ON schema_version TO palmgate_tenant;
