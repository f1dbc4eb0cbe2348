"""What tests share: servers and their load, programs under the library, the commands, testbeds, waiting."""
