"""The round loop: who is asked, what is averaged, what is recorded, how a run goes on after a kill."""
