"""Start the process of test-time training: ``python -m trainers.ttt WORK``."""

from trainers.ttt.process import main

main()
