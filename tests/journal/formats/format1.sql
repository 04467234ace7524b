PRAGMA application_id = 1164863338;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE definitions (
    definition INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    target TEXT NOT NULL,
    crash_hooks TEXT NOT NULL
);
INSERT INTO "definitions" VALUES(1,'flow','parent',NULL,'journal_app:parent','[["on_crashed", "noted_later", "journal_app:noted_later", null, 0], ["on_crashed", "noted", "journal_app:noted", null, 0], ["on_crashed", "page", "journal_app:parent#on_crashed[2]", null, 0], ["on_crashed", "<lambda>", "journal_app:parent#on_crashed[3]", null, 0]]');
INSERT INTO "definitions" VALUES(2,'task','child',NULL,'journal_app:child','[["on_crashed", "noted", "journal_app:noted", null, 0]]');
CREATE TABLE hooks (
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    hook TEXT NOT NULL,
    target TEXT NOT NULL,
    timeout REAL,
    retries INTEGER NOT NULL,
    fate TEXT NOT NULL DEFAULT 'owed',
    attempts INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    seconds REAL,
    error TEXT,
    ended_at REAL,
    PRIMARY KEY (run, sequence, position)
) WITHOUT ROWID;
INSERT INTO "hooks" VALUES(1,6,0,'on_completion','on_completion[0]:noted','journal_app:noted',NULL,0,'delivered',1,0,7.35896999685792252421e-04,NULL,1.79525565094254660608e+09);
CREATE TABLE owners (
    owner INTEGER PRIMARY KEY,
    prefix TEXT NOT NULL UNIQUE,
    base INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    started TEXT,
    boot TEXT,
    host TEXT NOT NULL,
    hooks TEXT NOT NULL,
    opened_at REAL NOT NULL,
    closed_at REAL
);
INSERT INTO "owners" VALUES(1,'vskkyq-',0,13865,'813558','08699a3f-2963-4d68-8f4c-aafbf69fe9d3','vm','[]',1.79525565092584967613e+09,NULL);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL,
    definition INTEGER NOT NULL,
    name TEXT,
    parent_run_id TEXT,
    flow_run_id TEXT,
    root_run_id TEXT NOT NULL,
    parameters TEXT,
    tags TEXT,
    created_at REAL NOT NULL,
    ended_at REAL
);
INSERT INTO "runs" VALUES(1,'vskkyq-1',1,1,'spry-pipit',NULL,NULL,'vskkyq-1','{"how": "0"}',NULL,1.7952556509301791191e+09,1.79525565093781828878e+09);
INSERT INTO "runs" VALUES(2,'vskkyq-2',1,2,NULL,'vskkyq-1','vskkyq-1','vskkyq-1','{"how": "0"}',NULL,1.79525565093154978752e+09,1.7952556509339606762e+09);
INSERT INTO "runs" VALUES(3,'vskkyq-3',1,1,'fleet-walrus',NULL,NULL,'vskkyq-3','{"how": "kill"}',NULL,1.79525565094265890124e+09,NULL);
INSERT INTO "runs" VALUES(4,'vskkyq-4',1,2,NULL,'vskkyq-3','vskkyq-3','vskkyq-3','{"how": "kill"}',NULL,1.79525565094375586516e+09,NULL);
CREATE TABLE transitions (
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    message TEXT,
    cause TEXT,
    attempt INTEGER NOT NULL,
    entered_at REAL NOT NULL,
    clock REAL,
    PRIMARY KEY (run, sequence)
) WITHOUT ROWID;
INSERT INTO "transitions" VALUES(1,1,'PENDING','Pending',NULL,NULL,0,1.7952556509301791191e+09,8135.960681175);
INSERT INTO "transitions" VALUES(1,2,'RUNNING','Running',NULL,NULL,1,1.79525565093034934999e+09,8135.96076531);
INSERT INTO "transitions" VALUES(1,6,'COMPLETED','Completed',NULL,NULL,1,1.79525565093781828878e+09,8135.968250765);
INSERT INTO "transitions" VALUES(2,3,'PENDING','Pending',NULL,NULL,0,1.79525565093154978752e+09,8135.962001884);
INSERT INTO "transitions" VALUES(2,4,'RUNNING','Running',NULL,NULL,1,1.79525565093162608144e+09,8135.962039981);
INSERT INTO "transitions" VALUES(2,5,'COMPLETED','Completed',NULL,NULL,1,1.7952556509339606762e+09,8135.964388043);
INSERT INTO "transitions" VALUES(3,7,'PENDING','Pending',NULL,NULL,0,1.79525565094265890124e+09,8135.973124434);
INSERT INTO "transitions" VALUES(3,8,'RUNNING','Running',NULL,NULL,1,1.79525565094274640082e+09,8135.973162961);
INSERT INTO "transitions" VALUES(4,9,'PENDING','Pending',NULL,NULL,0,1.79525565094375586516e+09,8135.97419476);
INSERT INTO "transitions" VALUES(4,10,'RUNNING','Running',NULL,NULL,1,1.79525565094382977488e+09,8135.974242421);
CREATE INDEX live_runs ON runs (run) WHERE ended_at IS NULL;
CREATE INDEX owed_hooks ON hooks (run, sequence, position) WHERE fate = 'owed';
COMMIT;
