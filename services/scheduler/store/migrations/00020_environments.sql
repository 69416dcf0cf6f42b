-- oldest: 20
-- An older binary deploys without a word of it in deployed_id: an older commit could follow over a newer one.
-- +goose Up

ALTER TABLE environments ADD COLUMN repository TEXT NOT NULL DEFAULT ''; -- owner/name, as GitHub spells it
ALTER TABLE environments ADD COLUMN deployed_id TEXT NOT NULL DEFAULT ''; -- the build whose deploy it runs
ALTER TABLE environments ADD COLUMN newest_id TEXT NOT NULL DEFAULT ''; -- the build that brought the newest commit; a roll back leaves it
ALTER TABLE environments ADD COLUMN freeze_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN freeze_message TEXT NOT NULL DEFAULT '';

-- Actions 3 and 4 deploy to staging and production; state 6 is passed.
UPDATE environments SET
  repository = COALESCE((SELECT max(b.repository) FROM builds b WHERE b.repository_id = environments.repository_id), ''),
  deployed_id = COALESCE((SELECT b.id FROM builds b
    WHERE b.repository_id = environments.repository_id AND b.state = 6
      AND b.action = CASE environments.name WHEN 'staging' THEN 3 ELSE 4 END
    ORDER BY b.number DESC LIMIT 1), '');
UPDATE environments SET newest_id = deployed_id;
