"""The errors a user can meet: each message is one line that says what is wrong, where, and what to do."""


class LakestrataError(Exception):
    """A fault that the user can mend; shown as one line, without a stack trace.

    Attributes:
        message: One line: what is wrong, where, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(LakestrataError):
    """Recipes, tables or columns that cannot work, found before any work starts (exit status 2).

    Attributes:
        problems: One line each; all that were found.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ResumeError(LakestrataError):
    """A run refused because its recipe or input is not that of the earlier run (exit status 2)."""


class AccountingError(LakestrataError):
    """Rows in are not rows out plus rows set aside: a fault of the program or of a changing input."""
