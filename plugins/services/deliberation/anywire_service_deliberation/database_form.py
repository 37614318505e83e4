"""What the file of deliberations is: its tables, and how an earlier one becomes the newest."""

from __future__ import annotations

from anywire.files.database_file import DatabaseForm

FILE = "deliberations.sqlite3"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE deliberations (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            tenant TEXT NOT NULL,
            id TEXT NOT NULL,
            status TEXT NOT NULL,
            roles TEXT NOT NULL,
            submitted REAL NOT NULL,
            ended REAL NOT NULL,
            expires REAL NOT NULL,
            question BLOB NOT NULL,
            state BLOB NOT NULL,
            UNIQUE (tenant, id)
        )""",
        "CREATE INDEX by_end ON deliberations (ended)",
        "CREATE INDEX by_tenant ON deliberations (tenant, submitted)",
        """CREATE TABLE works (
            deliberation INTEGER NOT NULL,
            part TEXT NOT NULL,
            number INTEGER NOT NULL,
            work TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (deliberation, part, number)
        ) WITHOUT ROWID""",
        """CREATE TABLE councils (
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (tenant, name)
        ) WITHOUT ROWID""",
    ),
)

FORM = DatabaseForm(FILE, MIGRATIONS, "deliberations", "services.deliberation.folder", synchronous="NORMAL")
